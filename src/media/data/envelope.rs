//! The envelope of a data message: who sends it, to whom, under which number.
//!
//! On the wire it is a protobuf message that clients extend faster than servers learn of it, so it
//! is never decoded and encoded again: what would be unknown would be lost. It is read as a row of
//! fields; those of the envelope are replaced, all others go on byte for byte.
//!
//! Field numbers are those of `DataPacket` and `UserPacket` in LiveKit's `livekit_models.proto`.

use std::sync::Arc;

/// Not a row of protobuf fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What a message carries, as far as it matters who may get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cargo {
    /// For other clients: user data, chat, RPC, streams, ciphertext, whatever comes to be.
    Mail,
    /// For the server, which has no use for it: metrics, and levels of speakers in clients of old.
    Private,
    /// None at all.
    Nothing,
}

/// A message, read but not copied.
#[derive(Debug)]
pub struct Envelope<'a> {
    bytes: &'a [u8],
    /// Counts the reliable messages of a sender from 1; 0 for clients that don't count.
    pub sequence: u32,
    /// What is in it.
    pub cargo: Cargo,
    /// Identities it is for; with `sids` empty too, it is for all.
    identities: Vec<&'a [u8]>,
    /// Stays it is for.
    sids: Vec<&'a [u8]>,
    /// Both, sorted: who gets it is asked of everybody in the room.
    receivers: Vec<&'a [u8]>,
}

/// Receivers that a message names, by identity or by stay; one that names more is malformed.
const RECEIVERS_MAX: usize = 1000;

/// Who a message comes from, as its receivers are told.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// The stay; empty if hidden.
    pub sid: &'a str,
    /// Who; empty if hidden.
    pub identity: &'a str,
    /// Whether it came on the lossy channel.
    pub lossy: bool,
}

/// `DataPacket`.
mod packet {
    pub const KIND: u32 = 1;
    pub const USER: u32 = 2;
    pub const SPEAKER: u32 = 3;
    pub const IDENTITY: u32 = 4;
    pub const TO_IDENTITIES: u32 = 5;
    pub const METRICS: u32 = 8;
    pub const SEQUENCE: u32 = 16;
    pub const SID: u32 = 17;
}

/// `UserPacket`, whose envelope is deprecated and read by clients all the same.
mod user {
    pub const SID: u32 = 1;
    pub const TO_SIDS: u32 = 3;
    pub const IDENTITY: u32 = 5;
    pub const TO_IDENTITIES: u32 = 6;
}

impl<'a> Envelope<'a> {
    /// Reads a message.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self {
            bytes,
            sequence: 0,
            cargo: Cargo::Nothing,
            identities: Vec::new(),
            sids: Vec::new(),
            receivers: Vec::new(),
        };
        let mut inner = Vec::new();
        let mut users = 0;
        for field in Fields(bytes) {
            let field = field?;
            match (field.number, field.value) {
                // Of the envelope, not of the cargo.
                (packet::KIND | packet::IDENTITY | packet::SID, _) => {}
                (packet::TO_IDENTITIES, Value::Bytes(identity)) => {
                    envelope.identities.push(identity);
                }
                (packet::SEQUENCE, Value::Varint(sequence)) => envelope.sequence = sequence as u32,
                (packet::USER, Value::Bytes(user)) => {
                    envelope.cargo = Cargo::Mail;
                    users += 1;
                    for field in Fields(user) {
                        let field = field?;
                        match (field.number, field.value) {
                            (user::TO_SIDS, Value::Bytes(sid)) => envelope.sids.push(sid),
                            (user::TO_IDENTITIES, Value::Bytes(identity)) => inner.push(identity),
                            _ => {}
                        }
                    }
                }
                (packet::SPEAKER | packet::METRICS, _) => envelope.cargo = Cargo::Private,
                (_, Value::Bytes(_)) => envelope.cargo = Cargo::Mail,
                _ => {}
            }
        }
        // One cargo is all that clients send. Each of many would be told all receivers, and make
        // a message of a thousand times its size.
        let named = envelope.identities.len() + inner.len() + envelope.sids.len();
        if users > 1 || named > RECEIVERS_MAX {
            return Err(Malformed);
        }
        // Clients fill the one list, the other, or both alike.
        if envelope.identities.is_empty() {
            envelope.identities = inner;
        }
        envelope.receivers = [&*envelope.identities, &*envelope.sids].concat();
        envelope.receivers.sort_unstable();
        Ok(envelope)
    }

    /// Whether it is for this stay of this identity.
    pub fn is_for(&self, sid: &str, identity: &str) -> bool {
        let named = |name: &str| self.receivers.binary_search(&name.as_bytes()).is_ok();
        self.receivers.is_empty() || named(identity) || named(sid)
    }

    /// The message as its receivers get it: whatever it said of its sender is replaced.
    pub fn stamped(&self, from: Sender<'_>) -> Result<Arc<[u8]>, Malformed> {
        let mut out =
            Vec::with_capacity(self.bytes.len() + 2 * (from.sid.len() + from.identity.len()) + 16);
        if from.lossy {
            put_varint(&mut out, u64::from(packet::KIND << 3));
            put_varint(&mut out, 1);
        }
        for field in Fields(self.bytes) {
            let field = field?;
            match (field.number, field.value) {
                (packet::KIND | packet::IDENTITY | packet::TO_IDENTITIES | packet::SID, _) => {}
                (packet::USER, Value::Bytes(user)) => {
                    put_bytes(&mut out, packet::USER, &self.stamped_user(user, from)?);
                }
                _ => out.extend_from_slice(field.raw),
            }
        }
        put_text(&mut out, packet::IDENTITY, from.identity);
        for identity in &self.identities {
            put_bytes(&mut out, packet::TO_IDENTITIES, identity);
        }
        put_text(&mut out, packet::SID, from.sid);
        Ok(out.into())
    }

    fn stamped_user(&self, user: &[u8], from: Sender<'_>) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(user.len() + from.sid.len() + from.identity.len() + 8);
        for field in Fields(user) {
            let field = field?;
            match field.number {
                user::SID | user::IDENTITY | user::TO_IDENTITIES => {}
                _ => out.extend_from_slice(field.raw),
            }
        }
        put_text(&mut out, user::SID, from.sid);
        put_text(&mut out, user::IDENTITY, from.identity);
        for identity in &self.identities {
            put_bytes(&mut out, user::TO_IDENTITIES, identity);
        }
        Ok(out)
    }
}

/// A field and its bytes, tag included.
struct Field<'a> {
    number: u32,
    value: Value<'a>,
    raw: &'a [u8],
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a message, in order. Ends after the first that can't be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.0;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups are long gone, and the rest was never used.
            _ => return Err(Malformed),
        };
        let raw = &start[..start.len() - self.0.len()];
        match number {
            0 => Err(Malformed),
            number => Ok(Field { number, value, raw }),
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// An empty text is left out, which is how protobuf says it.
fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_protocol as proto;
    use prost::Message as _;
    use proto::data_packet::Value as Carried;

    const ANNA: Sender<'_> = Sender {
        sid: "PA_anna",
        identity: "@anna:example.org",
        lossy: false,
    };

    fn message(value: Carried) -> proto::DataPacket {
        proto::DataPacket {
            participant_identity: "somebody else".to_owned(),
            participant_sid: "PA_else".to_owned(),
            sequence: 7,
            value: Some(value),
            ..Default::default()
        }
    }

    fn stamped(packet: &proto::DataPacket, from: Sender<'_>) -> proto::DataPacket {
        let bytes = packet.encode_to_vec();
        let envelope = Envelope::read(&bytes).expect("a message");
        let stamped = envelope.stamped(from).expect("a message");
        proto::DataPacket::decode(&*stamped).expect("still a message")
    }

    #[test]
    #[expect(deprecated, reason = "clients of today still use these fields")]
    fn the_sender_is_who_sent_it_whatever_the_message_says() {
        let user = proto::UserPacket {
            participant_sid: "PA_else".to_owned(),
            participant_identity: "somebody else".to_owned(),
            payload: vec![0, 1, 2],
            topic: Some("topic".to_owned()),
            destination_identities: vec!["@bert:example.org".to_owned()],
            ..Default::default()
        };
        let out = stamped(&message(Carried::User(user)), ANNA);
        assert_eq!(out.participant_sid, ANNA.sid);
        assert_eq!(out.participant_identity, ANNA.identity);
        assert_eq!(out.destination_identities, ["@bert:example.org"]);
        assert_eq!((out.sequence, out.kind), (7, 0));
        let Some(Carried::User(user)) = out.value else {
            panic!("{out:?}");
        };
        assert_eq!(user.participant_sid, ANNA.sid);
        assert_eq!(user.participant_identity, ANNA.identity);
        assert_eq!(user.destination_identities, ["@bert:example.org"]);
        assert_eq!(
            (user.payload, user.topic.as_deref()),
            (vec![0, 1, 2], Some("topic"))
        );
    }

    #[test]
    #[expect(deprecated, reason = "clients of today still use these fields")]
    fn a_hidden_sender_has_no_name_and_lossy_says_so() {
        let nobody = Sender {
            sid: "",
            identity: "",
            lossy: true,
        };
        let out = stamped(
            &message(Carried::User(proto::UserPacket::default())),
            nobody,
        );
        assert_eq!(
            (
                out.participant_sid.as_str(),
                out.participant_identity.as_str()
            ),
            ("", "")
        );
        assert_eq!(out.kind, proto::data_packet::Kind::Lossy as i32);
    }

    #[test]
    fn what_nobody_knows_yet_survives_byte_for_byte() {
        // Field 99 with bytes, field 100 with 8 of them, field 101 with 4, field 102 a number.
        let mut bytes = message(Carried::EncryptedPacket(proto::EncryptedPacket {
            encrypted_value: vec![9; 40],
            ..Default::default()
        }))
        .encode_to_vec();
        let mut unknown = Vec::new();
        put_bytes(&mut unknown, 99, b"unknown");
        put_varint(&mut unknown, 100 << 3 | 1);
        unknown.extend_from_slice(&[1; 8]);
        put_varint(&mut unknown, 101 << 3 | 5);
        unknown.extend_from_slice(&[2; 4]);
        put_varint(&mut unknown, 102 << 3);
        put_varint(&mut unknown, u64::MAX);
        bytes.extend_from_slice(&unknown);
        let envelope = Envelope::read(&bytes).expect("a message");
        assert_eq!(envelope.cargo, Cargo::Mail);
        let out = envelope.stamped(ANNA).expect("a message");
        let found = out.windows(unknown.len()).any(|part| part == unknown);
        assert!(found, "{out:?}");
        assert!(out.windows(40).any(|part| part == [9; 40]));
    }

    #[test]
    fn who_a_message_is_for() {
        let mut packet = message(Carried::ChatMessage(proto::ChatMessage::default()));
        let is_for = |packet: &proto::DataPacket| {
            let bytes = packet.encode_to_vec();
            let envelope = Envelope::read(&bytes).expect("a message");
            [("PA_b", "bert"), ("PA_c", "carl")].map(|(sid, who)| envelope.is_for(sid, who))
        };
        assert_eq!(is_for(&packet), [true, true]);
        packet.destination_identities = vec!["carl".to_owned()];
        assert_eq!(is_for(&packet), [false, true]);
        packet.destination_identities = vec!["dora".to_owned(), "bert".to_owned()];
        assert_eq!(is_for(&packet), [true, false]);
    }

    #[test]
    fn a_small_message_does_not_become_a_large_one() {
        let mut many_users = Vec::new();
        let mut many_receivers = Vec::new();
        for _ in 0..2000 {
            put_bytes(&mut many_users, packet::USER, b"");
            put_bytes(&mut many_receivers, packet::TO_IDENTITIES, b"");
        }
        for bytes in [many_users, many_receivers] {
            assert_eq!(Envelope::read(&bytes).err(), Some(Malformed));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [
            &b"\x07"[..],
            b"\x0b",
            b"\x12\x05ab",
            b"\x00\x00",
            &[0xff; 11],
            b"\x09\x01",
        ] {
            assert_eq!(Envelope::read(bytes).err(), Some(Malformed), "{bytes:?}");
        }
        assert_eq!(Envelope::read(b"").expect("empty").cargo, Cargo::Nothing);
    }
}
