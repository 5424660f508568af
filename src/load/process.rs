//! What the kernel knows of processes and sockets: readings of /proc.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::worker::drops::rows;

/// Units of CPU time in /proc: it has been a hundredth of a second on every Linux for decades.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads, to a hundredth of a second.
    pub cpu: Duration,
    /// Memory in RAM.
    pub rss_bytes: u64,
}

/// A process's usage; nothing if there is none of that number.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu: cpu(&stat)?,
        rss_bytes: rss(&status).unwrap_or(0),
    })
}

/// User and system time, fields 14 and 15 of proc_pid_stat(5). The second field is a name in
/// parentheses that may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.saturating_add(system))
}

fn rss(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// CPU time of the calling thread, to the nanosecond.
pub fn thread_cpu() -> Option<Duration> {
    cpu_of(Path::new("/proc/thread-self"))
}

/// Where others read of the calling thread.
pub fn thread() -> Option<PathBuf> {
    let thread = fs::read_link("/proc/thread-self").ok()?;
    Some(Path::new("/proc").join(thread))
}

/// CPU time of a thread, to the nanosecond.
pub fn cpu_of(thread: &Path) -> Option<Duration> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    let nanos = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Has the kernel wake the calling thread when it is due, and not up to 50 us later to save
/// energy. Where that is not allowed packets leave a little later.
pub fn wake_in_time() {
    let thread = fs::read_link("/proc/thread-self").ok();
    let id = thread.as_deref().and_then(|path| path.file_name());
    if let Some(id) = id.and_then(|id| id.to_str()) {
        let _ = fs::write(format!("/proc/{id}/timerslack_ns"), "1");
    }
}

/// Datagrams that the kernel had to drop because sockets of ours on these ports were full.
pub fn drops(ports: &HashSet<u16>) -> u64 {
    let tables = ["/proc/net/udp", "/proc/net/udp6"];
    let tables = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    tables.map(|table| drops_in(&table, ports)).sum()
}

fn drops_in(table: &str, ports: &HashSet<u16>) -> u64 {
    let own = rows(table).filter(|row| ports.contains(&row.local.1));
    own.map(|row| u64::from(row.drops)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_used_is_there() {
        let own = usage(std::process::id()).expect("this process");
        assert!(own.rss_bytes > 1 << 20);
        assert!(thread_cpu().is_some_and(|cpu| cpu > Duration::ZERO));
        assert_eq!(usage(u32::MAX), None);
        wake_in_time();
        let thread = fs::read_link("/proc/thread-self").expect("a thread");
        let id = thread
            .file_name()
            .and_then(|id| id.to_str())
            .expect("its id");
        let slack = fs::read_to_string(format!("/proc/{id}/timerslack_ns"));
        assert_eq!(slack.expect("its slack").trim(), "1");
    }

    #[test]
    fn fields_are_counted_from_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 6 7 20 0 9 0 99 1000 200 18446";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1750)));
        assert_eq!(cpu("7 (a"), None);
        assert_eq!(rss("Name:\ta\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(rss("Name:\ta\n"), None);
    }

    #[test]
    fn drops_are_those_of_own_ports() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
            uid  timeout inode ref pointer drops\n\
            1: 00000000:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 5\n\
            2: 00000000:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 9\n";
        assert_eq!(drops_in(table, &HashSet::from([0x1f90])), 5);
        assert_eq!(drops_in(table, &HashSet::from([0x1f90, 0x1f91])), 14);
        assert_eq!(drops_in("", &HashSet::new()), 0);
    }
}
