//! The Unix socket itself: a file that only its owner and group may use, and that is never two
//! daemons' at once.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Owner and group; whoever is in the group controls the node.
const MODE: u32 = 0o660;

/// A bound socket. The file goes with it, unless it is another's by then.
pub struct Listener {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl Listener {
    /// Binds at `path`, in place of a socket that nobody listens on any more.
    ///
    /// The file gets its mode under another name and is then moved: there is no moment at which
    /// others could open it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_ok() {
            return Err(ErrorKind::AddrInUse.into());
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !is_socket(&there) => return Err(ErrorKind::AlreadyExists.into()),
            _ => {}
        }
        let mut own = path.as_os_str().to_owned();
        own.push(format!(".{}", std::process::id()));
        let own = PathBuf::from(own);
        // A process of this number may have ended in the middle of this.
        let _ = fs::remove_file(&own);
        let listener = UnixListener::bind(&own)?;
        let moved = fs::set_permissions(&own, fs::Permissions::from_mode(MODE))
            .and_then(|()| fs::rename(&own, path))
            .and_then(|()| fs::symlink_metadata(path));
        if moved.is_err() {
            let _ = fs::remove_file(&own);
        }
        let file = moved?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|file| (file.dev(), file.ino()) == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!("the control socket stays: {error}");
        }
    }
}

fn is_socket(file: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_replaces_what_is_dead_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("stellwerk-{}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("control");
        let first = Listener::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let second = Listener::bind(&path).err().map(|error| error.kind());
        assert_eq!(second, Some(ErrorKind::AddrInUse));

        // As after a crash: the file is there, and nobody behind it.
        let Listener { listener, .. } = &first;
        let dead = std::os::unix::net::UnixListener::bind(folder.join("dead")).unwrap();
        drop(dead);
        let third = Listener::bind(&folder.join("dead")).unwrap();
        assert_eq!(third.path(), folder.join("dead"));
        assert!(listener.local_addr().is_ok());
        drop((first, third));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left");

        fs::write(&path, "somebody's text").unwrap();
        let refused = Listener::bind(&path).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::AlreadyExists));
        fs::remove_dir_all(&folder).unwrap();
    }
}
