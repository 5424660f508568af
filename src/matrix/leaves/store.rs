//! The file of entrusted leaves, for the process that comes after this one.
//!
//! Each change is a line of JSON at its end; the last line of a participant counts. When most lines
//! are history the file is written anew, and without a leave it is empty. A line is with the kernel
//! before the client has its answer, so it outlives this process however that ends; a crash of the
//! whole host may lose the last ones, and then the homeserver's own timer is left.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Key, Leave};
use crate::matrix::name::UserId;

/// Lines of history that are put up with beside those that count.
const HISTORY: usize = 1000;

/// Bytes of a line; a longer one is none of ours.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// The open file.
pub struct Store {
    path: PathBuf,
    file: File,
    /// Held as long as the process lives: two of them would send each leave twice.
    _lock: File,
    lines: usize,
}

/// A leave, and when the homeserver sends it by itself: a time since 1970.
#[derive(Clone)]
pub struct Kept {
    /// Whose it is.
    pub key: Key,
    /// The leave.
    pub leave: Leave,
    /// When the homeserver sends it by itself.
    pub end: Duration,
}

#[derive(Serialize, Deserialize)]
struct Line {
    room: String,
    identity: String,
    /// Absent when the leave is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leave: Option<Waiting>,
}

#[derive(Serialize, Deserialize)]
struct Waiting {
    user: String,
    id: String,
    delay_ms: u64,
    /// Milliseconds since 1970.
    end_ms: u64,
}

impl Store {
    /// Opens the file, or makes it, and says what is in it. A line that can't be read is left out:
    /// the last one may be half there.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Kept>)> {
        let lock = lock(path)?;
        let kept = match File::open(path) {
            Ok(file) => read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut store = Self {
            path: path.to_owned(),
            file: append(path)?,
            _lock: lock,
            lines: 0,
        };
        store.rewrite(&kept)?;
        Ok((store, kept))
    }

    /// Keeps a leave, or the new end of one.
    pub fn put(&mut self, kept: &Kept) -> io::Result<()> {
        self.write(&Line::of(kept))
    }

    /// Forgets a leave.
    pub fn remove(&mut self, (room, identity): &Key) -> io::Result<()> {
        self.write(&Line {
            room: room.as_str().to_owned(),
            identity: identity.as_str().to_owned(),
            leave: None,
        })
    }

    /// Whether there is so much history that [`Store::rewrite`] is due, with `live` leaves left.
    pub fn is_long(&self, live: usize) -> bool {
        self.lines > 2 * live + HISTORY || (live == 0 && self.lines > 0)
    }

    /// Writes the file anew. Whatever happens meanwhile, one of the two is there.
    pub fn rewrite(&mut self, kept: &[Kept]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut text = Vec::new();
        for kept in kept {
            serde_json::to_writer(&mut text, &Line::of(kept))?;
            text.push(b'\n');
        }
        let mut file = append(&new)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        self.lines = kept.len();
        Ok(())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.lines += 1;
        // In one call, so that there is never half a line unless the disk is full.
        self.file.write_all(&text)
    }
}

impl Line {
    fn of(kept: &Kept) -> Self {
        let (room, identity) = &kept.key;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            room: room.as_str().to_owned(),
            identity: identity.as_str().to_owned(),
            leave: Some(Waiting {
                user: kept.leave.user.as_str().to_owned(),
                id: kept.leave.id.clone(),
                delay_ms: milliseconds(kept.leave.delay),
                end_ms: milliseconds(kept.end),
            }),
        }
    }

    fn key(&self) -> Key {
        (self.room.as_str().into(), self.identity.as_str().into())
    }
}

fn read(file: File) -> io::Result<Vec<Kept>> {
    let mut found = HashMap::new();
    let mut file = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let mut limited = io::Read::take(&mut file, LINE_BYTES_MAX);
        if limited.read_until(b'\n', &mut text)? == 0 {
            return Ok(found.into_values().collect());
        }
        let Ok(line) = serde_json::from_slice::<Line>(&text) else {
            tracing::warn!("a line of matrix.leaves can't be read and is left out");
            continue;
        };
        let key = line.key();
        let waiting = line.leave.and_then(|waiting| {
            Some(Kept {
                key: key.clone(),
                leave: Leave {
                    user: UserId::new(&waiting.user)?,
                    id: waiting.id,
                    delay: Duration::from_millis(waiting.delay_ms),
                },
                end: Duration::from_millis(waiting.end_ms),
            })
        });
        match waiting {
            Some(kept) => found.insert(key, kept),
            None => found.remove(&key),
        };
    }
}

/// For appending, and for nobody else's eyes: there are user ids in it.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Beside the file, which is replaced now and then.
fn lock(path: &Path) -> io::Result<File> {
    let lock = append(&path.with_extension("lock"))?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::other("another daemon uses it"),
        fs::TryLockError::Error(error) => error,
    })?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("stellwerk-leaves-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("leaves")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kept(identity: &str, id: &str) -> Kept {
        Kept {
            key: ("red".into(), identity.into()),
            leave: Leave {
                user: UserId::new("@anna:example.org").unwrap(),
                id: id.to_owned(),
                delay: Duration::from_secs(3600),
            },
            end: Duration::from_secs(1_790_000_000),
        }
    }

    fn ids(mut found: Vec<Kept>) -> Vec<String> {
        found.sort_by(|a, b| a.leave.id.cmp(&b.leave.id));
        found.into_iter().map(|kept| kept.leave.id).collect()
    }

    #[test]
    fn what_was_put_is_there_again_and_what_ended_is_not() {
        let folder = Folder::new("again");
        let (mut store, found) = Store::open(&folder.file()).unwrap();
        assert!(found.is_empty());
        for one in [kept("anna", "1"), kept("ben", "2"), kept("anna", "3")] {
            store.put(&one).unwrap();
        }
        store.remove(&("red".into(), "ben".into())).unwrap();
        assert!(Store::open(&folder.file()).is_err(), "one daemon at a time");
        drop(store);
        let (_, found) = Store::open(&folder.file()).unwrap();
        assert_eq!(found[0].leave.delay, Duration::from_secs(3600));
        assert_eq!(found[0].end, Duration::from_secs(1_790_000_000));
        assert_eq!(ids(found), ["3"]);
    }

    #[test]
    fn half_a_line_and_rubbish_harm_no_others() {
        let folder = Folder::new("half");
        let (mut store, _) = Store::open(&folder.file()).unwrap();
        store.put(&kept("anna", "1")).unwrap();
        drop(store);
        let mut file = append(&folder.file()).unwrap();
        let long = vec![b'x'; 100_000];
        file.write_all(&long).unwrap();
        file.write_all(b"\n{\"room\":\"red\",\"ident").unwrap();
        let (mut store, found) = Store::open(&folder.file()).unwrap();
        assert_eq!(ids(found), ["1"]);
        store.put(&kept("ben", "2")).unwrap();
        drop(store);
        assert_eq!(ids(Store::open(&folder.file()).unwrap().1), ["1", "2"]);
    }

    #[test]
    fn history_is_bounded_and_nothing_is_left_of_the_last() {
        let folder = Folder::new("history");
        let (mut store, _) = Store::open(&folder.file()).unwrap();
        let anna = kept("anna", "1");
        while !store.is_long(1) {
            store.put(&anna).unwrap();
        }
        assert_eq!(store.lines, HISTORY + 3);
        store.rewrite(std::slice::from_ref(&anna)).unwrap();
        assert!(!store.is_long(1));
        store.remove(&anna.key).unwrap();
        assert!(store.is_long(0));
        store.rewrite(&[]).unwrap();
        assert_eq!(fs::read(folder.file()).unwrap(), b"");
    }
}
