//! What the kernel dropped because nobody fetched it in time.
//!
//! A datagram that finds the receive buffer of its socket full is gone before a worker can count
//! it. The kernel counts it for each socket, and shows that to whoever reads its table of sockets:
//! far from the packet path, and without asking for a control message with every datagram.
//!
//! A socket is told by its inode, as on a shared port many have the same address. What is dropped
//! between the last look at one and its end is not seen.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A look is followed by a pause of so many times its own length: on a host with tens of thousands
/// of sockets the kernel takes long to list them, and that may not cost a core.
const PAUSE_FACTOR: u32 = 50;

/// The kernel's tables, of IPv4 and of IPv6. By way of `self`, as a service may see no other part
/// of /proc.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];

/// A socket in such a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where it is bound.
    pub local: (IpAddr, u16),
    /// Its number, as long as it is open.
    pub inode: u64,
    /// Datagrams dropped since it was made; starts again after the largest number.
    pub drops: u32,
}

/// The sockets in the text of a table.
pub fn rows(table: &str) -> impl Iterator<Item = Row> {
    table.lines().filter_map(Row::parse)
}

impl Row {
    /// Fields of proc(5): number, local and remote address, state, queues, timer, retransmits,
    /// user, timeout, inode, references, pointer, drops. The heading is no row.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (ip, port) = fields.next()?.split_once(':')?;
        let inode = fields.nth(7)?.parse().ok()?;
        // Older kernels write the larger half of all numbers as negative ones.
        let drops: i64 = fields.nth(2)?.parse().ok()?;
        Some(Self {
            local: (address(ip)?, u16::from_str_radix(port, 16).ok()?),
            inode,
            drops: drops as u32,
        })
    }
}

/// An address as words of 32 bits: each is written as a number of the host, though its bytes are in
/// the order of the network.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// What was dropped on some addresses.
#[derive(Debug)]
pub struct Drops {
    tables: [&'static str; 2],
    locals: HashSet<(IpAddr, u16)>,
    /// What the sockets that are open now had dropped at the last look, by inode.
    seen: HashMap<u64, u32>,
    total: u64,
}

impl Drops {
    /// Nothing so far. All sockets bound to one of `locals` count.
    pub fn new(locals: impl IntoIterator<Item = SocketAddr>) -> Self {
        let locals = locals.into_iter().map(|it| (it.ip(), it.port()));
        Self {
            tables: TABLES,
            locals: locals.collect(),
            seen: HashMap::new(),
            total: 0,
        }
    }

    /// Looks, and returns how many there are by now. It never falls.
    pub fn look(&mut self) -> io::Result<u64> {
        let mut text = String::new();
        for (path, is_v4) in self.tables.into_iter().zip([true, false]) {
            // A host without IPv6 has no such table.
            if self.locals.iter().any(|(ip, _)| ip.is_ipv4() == is_v4) {
                text += &fs::read_to_string(path)?;
            }
        }
        self.note(rows(&text));
        Ok(self.total)
    }

    fn note(&mut self, rows: impl Iterator<Item = Row>) {
        let before = std::mem::take(&mut self.seen);
        for row in rows.filter(|row| self.locals.contains(&row.local)) {
            let known = before.get(&row.inode).copied().unwrap_or(0);
            self.total += u64::from(row.drops.wrapping_sub(known));
            self.seen.insert(row.inode, row.drops);
        }
    }
}

/// Keeps `dropped` at what there is, for as long as it is polled. Where the kernel doesn't tell, it
/// says so once and ends.
pub async fn watch(mut drops: Drops, dropped: Arc<AtomicU64>) {
    loop {
        let begun = Instant::now();
        let look = spawn_blocking(move || {
            let found = drops.look();
            (drops, found)
        });
        // The runtime ends, and this with it.
        let Ok((back, found)) = look.await else {
            return;
        };
        drops = back;
        match found {
            Ok(total) => dropped.store(total, Ordering::Relaxed),
            Err(error) => {
                return warn!("what the kernel drops of media can't be counted: {error}");
            }
        }
        sleep(INTERVAL.max(begun.elapsed() * PAUSE_FACTOR)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::udp::{Bound, Buffers};
    use super::*;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when \
        retrnsmt   uid  timeout inode ref pointer drops\n";

    /// A socket whose kernel buffer is as small as it gets.
    fn bound(local: &str) -> Bound {
        let sizes = Buffers {
            receive: 1,
            send: 1,
        };
        Bound::new(local.parse().unwrap(), sizes).expect("a free port")
    }

    /// Sends so many to somebody who doesn't listen.
    fn flood(to: SocketAddr, count: usize) {
        let from = UdpSocket::bind((to.ip(), 0)).unwrap();
        for _ in 0..count {
            from.send_to(&[7; 1000], to).unwrap();
        }
    }

    #[test]
    fn what_finds_a_full_buffer_is_counted_and_stays_counted() {
        let (own, other) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let local = own.local();
        let mut drops = Drops::new([local]);
        assert_eq!(drops.look().unwrap(), 0);
        flood(local, 100);
        flood(other.local(), 100);
        let first = drops.look().unwrap();
        // The smallest buffer has room for two or three of that size.
        assert!((90..100).contains(&first), "{first}");
        assert_eq!(drops.look().unwrap(), first);
        flood(local, 10);
        assert_eq!(drops.look().unwrap(), first + 10);
        // The next socket of that address starts anew, the count doesn't.
        drop(own);
        assert_eq!(drops.look().unwrap(), first + 10);
        let again = bound(&local.to_string());
        flood(again.local(), 100);
        assert_eq!(drops.look().unwrap(), first + 10 + first);
    }

    #[test]
    fn so_it_is_with_the_other_family() {
        // Without IPv6 on this host there is nothing to show.
        let sizes = Buffers {
            receive: 1,
            send: 1,
        };
        let Ok(own) = Bound::new("[::1]:0".parse().unwrap(), sizes) else {
            return;
        };
        let mut drops = Drops::new([own.local()]);
        flood(own.local(), 100);
        assert!(drops.look().unwrap() >= 90);
    }

    #[test]
    fn rows_are_read_and_headings_are_not() {
        let word = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
        let local = word([127, 0, 0, 1]);
        let v4 = format!(
            "{HEADING} 1234: {local}:1F90 {local}:1F91 07 00000000:00000000 00:00000000 00000000 \
             1000        0 4711 2 0000000000000000 5\n"
        );
        let row = Row {
            local: (Ipv4Addr::LOCALHOST.into(), 8080),
            inode: 4711,
            drops: 5,
        };
        assert_eq!(rows(&v4).collect::<Vec<_>>(), [row]);
        let words = [[0x20, 1, 0x0d, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]];
        let v6 = v4.replace(&local, &words.map(word).concat());
        let local = rows(&v6).next().map(|row| row.local.0);
        assert_eq!(local, "2001:db8::1".parse().ok());
        assert_eq!(rows("1: 0100007F:1F90 short").next(), None);
    }

    #[test]
    fn a_count_that_starts_again_is_no_step_back() {
        let local = (IpAddr::from(Ipv4Addr::LOCALHOST), 9);
        let mut drops = Drops::new([SocketAddr::from(local)]);
        let row = |inode, drops| Row {
            local,
            inode,
            drops,
        };
        drops.note([row(1, u32::MAX - 1)].into_iter());
        let before = drops.total;
        drops.note([row(1, 3), row(2, 7)].into_iter());
        assert_eq!(drops.total, before + 5 + 7);
    }

    #[tokio::test]
    async fn it_goes_on_unless_the_kernel_does_not_tell() {
        let own = bound("127.0.0.1:0");
        let dropped = Arc::new(AtomicU64::new(0));
        flood(own.local(), 100);
        let mut drops = Drops::new([own.local()]);
        let watching = watch(drops, Arc::clone(&dropped));
        let limit = tokio::time::timeout(INTERVAL / 2, watching).await;
        assert!(limit.is_err());
        assert!(dropped.load(Ordering::Relaxed) >= 90);
        drops = Drops::new([own.local()]);
        drops.tables = ["/proc/self/net/missing"; 2];
        watch(drops, dropped).await;
    }
}
