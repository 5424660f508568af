//! ICE over TCP at the door: connections are taken here, outside the workers, and each is handed to
//! the worker that its first frame names (RFC 6544; frames as in RFC 4571).
//!
//! A connection has a few seconds to send a first frame, and that has to be a check for somebody
//! here: so what costs nothing to open holds nothing for long.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::streams::FRAME_BYTES_MAX;
use super::team::{Connection, Handed};
use crate::media::demux::{self, Pair};

/// How long a connection may take to say whose it is.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);

/// Connections of one IP address that haven't said yet whose they are; further ones are closed.
/// What a client has to say takes one round trip.
const GREETINGS_PER_ADDRESS: usize = 64;

/// After a connection could not be taken, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What became of connections that no worker got.
#[derive(Debug, Default)]
pub struct Stats {
    /// They said nothing in time, or something else than a check for anybody here.
    pub strangers: AtomicU64,
    /// Their worker or their address had too many waiting.
    pub refused: AtomicU64,
    /// They could not be taken.
    pub failed: AtomicU64,
}

/// Takes connections until it is dropped. As many as `places` has are open at a time, those that
/// workers hold among them; more wait in the listen queue of the kernel.
pub async fn serve(
    listener: TcpListener,
    members: Vec<mpsc::Sender<Handed>>,
    places: Arc<Semaphore>,
    stats: Arc<Stats>,
) {
    let mut greeters = JoinSet::new();
    let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        let taken = tokio::select! {
            Some(Ok(address)) = greeters.join_next() => {
                leave(&mut by_address, address);
                continue;
            }
            taken = take(&listener, &places) => taken,
        };
        let Ok((place, stream, remote)) = taken else {
            stats.failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let address = remote.ip();
        let greeting = by_address.entry(address).or_default();
        if *greeting >= GREETINGS_PER_ADDRESS {
            stats.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        *greeting += 1;
        let (members, stats) = (members.clone(), Arc::clone(&stats));
        greeters.spawn(async move {
            greet(stream, remote, place, &members, &stats).await;
            address
        });
    }
}

/// The next connection, once there is a place for it.
async fn take(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    Ok((place, stream, remote))
}

/// A connection of that address has said whose it is, or has not.
fn leave(by_address: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Entry::Occupied(mut greeting) = by_address.entry(address) {
        *greeting.get_mut() -= 1;
        if *greeting.get() == 0 {
            greeting.remove();
        }
    }
}

/// Reads the first frame and hands the connection on.
async fn greet(
    mut stream: TcpStream,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
    members: &[mpsc::Sender<Handed>],
    stats: &Stats,
) {
    let first = tokio::time::timeout(GREETING_TIME_MAX, read_frame(&mut stream)).await;
    let first = first.ok().and_then(Result::ok);
    let owner = first.as_deref().and_then(demux::worker_of);
    let member = owner.and_then(|owner| members.get(usize::from(owner.0)));
    let local = stream.local_addr().ok();
    let (Some(first), Some(member), Some(local)) = (first, member, local) else {
        stats.strangers.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let Ok(stream) = stream.into_std() else {
        stats.failed.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let connection = Connection {
        stream,
        pair: Pair { local, remote },
        first,
        place,
    };
    if member.try_send(Handed::Connection(connection)).is_err() {
        stats.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// One frame: its length in two bytes, and what it carries.
async fn read_frame(stream: &mut TcpStream) -> io::Result<Box<[u8]>> {
    let length = usize::from(stream.read_u16().await?);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::worker::team::Team;

    /// A check for a peer of the second worker, as a frame.
    fn check() -> Vec<u8> {
        let mut frame = vec![0, 32];
        frame.extend([0; 20]);
        frame.extend([0x00, 0x06, 0, 8]);
        frame.extend(b"01ab:cde");
        frame
    }

    struct Door {
        at: SocketAddr,
        team: Vec<Team>,
        places: Arc<Semaphore>,
        stats: Arc<Stats>,
    }

    async fn door(places: usize) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Door {
            at: listener.local_addr().unwrap(),
            team: Team::of(2, true),
            places: Arc::new(Semaphore::new(places)),
            stats: Arc::default(),
        };
        let members = door.team[0].members();
        let (places, stats) = (Arc::clone(&door.places), Arc::clone(&door.stats));
        tokio::spawn(serve(listener, members, places, stats));
        door
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_worker_its_first_frame_names() {
        let mut door = door(1).await;
        let mut client = TcpStream::connect(door.at).await.unwrap();
        // In pieces, as a network may deliver it.
        for byte in check() {
            client.write_all(&[byte]).await.unwrap();
        }
        let Some(Handed::Connection(connection)) = door.team[1].handed().recv().await else {
            panic!("no connection");
        };
        assert_eq!(*connection.first, check()[2..]);
        assert_eq!(connection.pair.remote, client.local_addr().unwrap());
        assert_eq!(door.places.available_permits(), 0);
        let mut second = TcpStream::connect(door.at).await.unwrap();
        second.write_all(&check()).await.unwrap();
        assert!(
            door.team[1].handed().try_recv().is_err(),
            "there is one place"
        );
        drop(connection);
        let next = door.team[1].handed().recv().await;
        let Some(Handed::Connection(next)) = next else {
            panic!("no second connection");
        };
        assert_eq!(next.pair.remote, second.local_addr().unwrap());
    }

    #[tokio::test]
    async fn whoever_says_something_else_is_sent_away() {
        let door = door(4).await;
        for wrong in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 3, 1, 2, 3], &[0, 0]] {
            let mut client = TcpStream::connect(door.at).await.unwrap();
            client.write_all(wrong).await.unwrap();
            // An end, or an error for what was never read.
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(GREETING_TIME_MAX, client.read_to_end(&mut rest));
            let _ = ended.await.expect("it ends soon");
            assert!(rest.is_empty());
        }
        assert_eq!(door.stats.strangers.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_sent_away_in_time() {
        let door = door(1).await;
        let mut client = TcpStream::connect(door.at).await.unwrap();
        let _ = client.read(&mut [0; 1]).await;
        assert_eq!(door.stats.strangers.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn one_address_takes_few_places() {
        let door = door(1000).await;
        let mut silent = Vec::new();
        for _ in 0..GREETINGS_PER_ADDRESS {
            silent.push(TcpStream::connect(door.at).await.unwrap());
        }
        let mut further = TcpStream::connect(door.at).await.unwrap();
        assert_eq!(further.read(&mut [0; 1]).await.unwrap_or_default(), 0);
        assert_eq!(door.stats.refused.load(Ordering::Relaxed), 1);
    }
}
