//! ICE over TCP at the door: connections are taken here, outside the workers, and each is handed to
//! the worker that its first frame names (RFC 6544; frames as in RFC 4571).
//!
//! A connection has a few seconds to send a first frame, and that has to be a check for somebody
//! here: so what costs nothing to open holds nothing for long.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::streams::FRAME_BYTES_MAX;
use super::team::Connection;
use crate::ids::Household;
use crate::media::demux::{self, Pair};

/// How long a connection may take to say whose it is.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);

/// Connections of one household that haven't said yet whose they are, over all listeners; further
/// ones are closed. What a client has to say takes one round trip.
const GREETINGS_PER_HOUSEHOLD: usize = 64;

/// After a connection could not be taken, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What became of connections that no worker got.
#[derive(Debug, Default)]
pub struct Stats {
    /// They said nothing in time, or something else than a check for anybody here.
    pub strangers: AtomicU64,
    /// Their worker, their household or all of them together had too many waiting.
    pub refused: AtomicU64,
    /// They could not be taken.
    pub failed: AtomicU64,
}

/// What the listeners share.
#[derive(Debug)]
pub struct Door {
    /// As many connections are open at a time, those that workers hold among them.
    places: Arc<Semaphore>,
    greetings: Greetings,
    stats: Arc<Stats>,
}

/// Connections that haven't said yet whose they are. Locked when one comes and goes.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "the door is off the packet path")]
struct Greetings {
    /// No larger than the number of connections.
    by_household: std::sync::Mutex<HashMap<Household, usize>>,
    /// Half of all places: whoever holds on to them leaves the others to participants.
    all: Arc<Semaphore>,
}

/// One of them.
struct Greeting {
    door: Arc<Door>,
    household: Household,
    _of_all: OwnedSemaphorePermit,
}

impl Door {
    /// A door to so many places.
    pub fn new(places: usize, stats: Arc<Stats>) -> Self {
        let places = places.min(Semaphore::MAX_PERMITS);
        let by_household = Default::default();
        Self {
            places: Arc::new(Semaphore::new(places)),
            greetings: Greetings {
                by_household,
                all: Arc::new(Semaphore::new(places.div_ceil(2))),
            },
            stats,
        }
    }

    /// Lets one more in, unless there are too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Greeting> {
        let of_all = Arc::clone(&self.greetings.all).try_acquire_owned().ok()?;
        let household = Household::of(address);
        let counts = &self.greetings.by_household;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(household).or_default();
        if *count >= GREETINGS_PER_HOUSEHOLD {
            return None;
        }
        *count += 1;
        Some(Greeting {
            door: Arc::clone(self),
            household,
            _of_all: of_all,
        })
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        let counts = &self.door.greetings.by_household;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.household) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Takes connections until it is dropped. For those without a place it is the listen queue of the
/// kernel where they wait.
pub async fn serve(listener: TcpListener, workers: Vec<mpsc::Sender<Connection>>, door: Arc<Door>) {
    let mut greeters = JoinSet::new();
    loop {
        let taken = tokio::select! {
            Some(_) = greeters.join_next() => continue,
            taken = take(&listener, &door.places) => taken,
        };
        let Ok((place, stream, remote)) = taken else {
            door.stats.failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(greeting) = door.admit(remote.ip()) else {
            door.stats.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let workers = workers.clone();
        greeters.spawn(async move {
            greet(stream, remote, place, &workers, &greeting.door.stats).await;
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

/// Reads the first frame and hands the connection on.
async fn greet(
    mut stream: TcpStream,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
    workers: &[mpsc::Sender<Connection>],
    stats: &Stats,
) {
    let first = tokio::time::timeout(GREETING_TIME_MAX, read_frame(&mut stream)).await;
    let first = first.ok().and_then(Result::ok);
    let owner = first.as_deref().and_then(demux::worker_of);
    let worker = owner.and_then(|owner| workers.get(usize::from(owner.0)));
    let local = stream.local_addr().ok();
    let (Some(first), Some(worker), Some(local)) = (first, worker, local) else {
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
    if worker.try_send(connection).is_err() {
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
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::worker::team::{Handed, Team};

    /// A check for a peer of the second worker, as a frame.
    fn check() -> Vec<u8> {
        let mut frame = vec![0, 32];
        frame.extend([0x00, 0x01]);
        frame.extend([0; 18]);
        frame.extend([0x00, 0x06, 0, 8]);
        frame.extend(b"01ab:cde");
        frame
    }

    struct House {
        at: Vec<SocketAddr>,
        team: Vec<Team>,
        door: Arc<Door>,
        stats: Arc<Stats>,
    }

    impl House {
        /// What the second worker is handed next.
        async fn handed(&mut self) -> Connection {
            match poll_fn(|cx| self.team[1].poll_handed(cx)).await {
                Handed::Connection(connection) => connection,
                Handed::Datagram(_) => panic!("no connection"),
            }
        }
    }

    async fn house(places: usize, listeners: usize) -> House {
        let stats: Arc<Stats> = Arc::default();
        let mut house = House {
            at: Vec::new(),
            team: Team::of(2, false),
            door: Arc::new(Door::new(places, Arc::clone(&stats))),
            stats,
        };
        for _ in 0..listeners {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            house.at.push(listener.local_addr().unwrap());
            let workers = house.team[0].doors();
            tokio::spawn(serve(listener, workers, Arc::clone(&house.door)));
        }
        house
    }

    /// It is closed from the other side, without a word.
    async fn is_closed(client: &mut TcpStream) -> bool {
        let mut byte = [0; 1];
        let read = tokio::time::timeout(GREETING_TIME_MAX / 2, client.read(&mut byte));
        read.await.is_ok_and(|read| read.unwrap_or_default() == 0)
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_worker_its_first_frame_names() {
        let mut house = house(1, 1).await;
        let mut client = TcpStream::connect(house.at[0]).await.unwrap();
        // In pieces, as a network may deliver it.
        for byte in check() {
            client.write_all(&[byte]).await.unwrap();
        }
        let connection = house.handed().await;
        assert_eq!(*connection.first, check()[2..]);
        assert_eq!(connection.pair.remote, client.local_addr().unwrap());
        let mut second = TcpStream::connect(house.at[0]).await.unwrap();
        second.write_all(&check()).await.unwrap();
        assert!(house.team[1].next_handed().is_none(), "there is one place");
        drop(connection);
        let next = house.handed().await;
        assert_eq!(next.pair.remote, second.local_addr().unwrap());
    }

    #[tokio::test]
    async fn whoever_says_something_else_is_sent_away() {
        let house = house(4, 1).await;
        for wrong in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 3, 1, 2, 3], &[0, 0]] {
            let mut client = TcpStream::connect(house.at[0]).await.unwrap();
            client.write_all(wrong).await.unwrap();
            // An end, or an error for what was never read.
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(GREETING_TIME_MAX, client.read_to_end(&mut rest));
            let _ = ended.await.expect("it ends soon");
            assert!(rest.is_empty());
        }
        assert_eq!(house.stats.strangers.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_sent_away_in_time() {
        let house = house(1, 1).await;
        let mut client = TcpStream::connect(house.at[0]).await.unwrap();
        let _ = client.read(&mut [0; 1]).await;
        assert_eq!(house.stats.strangers.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn one_address_takes_few_places_at_all_listeners_together() {
        let house = house(1000, 2).await;
        let mut silent = Vec::new();
        for number in 0..GREETINGS_PER_HOUSEHOLD {
            let at = house.at[number % house.at.len()];
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        // Those before may not have been taken by the other listener yet.
        while house.door.greetings.all.available_permits() > 500 - GREETINGS_PER_HOUSEHOLD {
            tokio::task::yield_now().await;
        }
        for at in &house.at {
            let mut further = TcpStream::connect(at).await.unwrap();
            assert!(is_closed(&mut further).await);
        }
        assert_eq!(house.stats.refused.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_network_of_ipv6_counts_as_one_and_strangers_get_half() {
        let door = Arc::new(Door::new(400, Arc::default()));
        let address =
            |network: u16, last: u16| IpAddr::from([0x2001, 0xdb8, 0, network, last, 0, 0, last]);
        let mut greetings = Vec::new();
        for last in 0..100 {
            greetings.extend(door.admit(address(0, last)));
        }
        assert_eq!(greetings.len(), GREETINGS_PER_HOUSEHOLD);
        greetings.extend((1..500).filter_map(|network| door.admit(address(network, 1))));
        assert_eq!(greetings.len(), 200, "half of the places");
        greetings.clear();
        assert!(door.admit(address(0, 1)).is_some());
        assert!(door.greetings.by_household.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_flood_of_datagrams_keeps_no_connection_out() {
        let mut house = house(4, 1).await;
        let from = house.at[0];
        // They are lost once too many wait.
        for _ in 0..=crate::worker::team::WAITING_MAX {
            house.team[0].pass(from, from, &check()[2..]);
        }
        let mut client = TcpStream::connect(house.at[0]).await.unwrap();
        client.write_all(&check()).await.unwrap();
        while house.stats.refused.load(Ordering::Relaxed) == 0 {
            if let Some(Handed::Connection(connection)) = house.team[1].next_handed() {
                assert_eq!(connection.pair.remote, client.local_addr().unwrap());
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the connection was refused");
    }
}
