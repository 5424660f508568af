//! A TCP stream that yields only so many bytes per second.
//!
//! Messages are counted where they are read, but a WebSocket message may be cut into any number of
//! frames, empty ones too, which the protocol library puts together by itself. The bytes of a
//! connection are what bounds that work: an empty frame takes six.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::Stats;

/// Bytes per second in the long run: forty thousand empty frames, less than a hundredth of a core.
/// Clients send a few hundred, and some ten thousand when they join.
const RATE: u32 = 256 * 1024;

/// The least time to wait, so that a flood wakes its task rarely.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The stream. Over its rate it isn't read, and the kernel makes the other side wait.
pub(super) struct Metered {
    stream: TcpStream,
    stats: Arc<Stats>,
    /// Bytes that may come without a pause.
    burst: i64,
    /// What is left of them. Below zero after a read that took more.
    left: i64,
    counted: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    pub fn new(stream: TcpStream, burst: usize, stats: Arc<Stats>) -> Self {
        let burst = i64::try_from(burst).unwrap_or(i64::MAX);
        Self {
            stream,
            stats,
            burst,
            left: burst,
            counted: Instant::now(),
            pause: None,
        }
    }

    fn earn(&mut self) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        let earned = (passed.as_secs_f64() * f64::from(RATE)) as i64;
        self.left = self.left.saturating_add(earned).min(self.burst);
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.earn();
        this.left -= (buffer.filled().len() - before) as i64;
        if this.left < 0 {
            Stats::count(&this.stats.rate_limited);
            let owed = this.left.unsigned_abs() as f64 / f64::from(RATE);
            let pause = Duration::from_secs_f64(owed).max(PAUSE_MIN);
            this.pause = Some(Box::pin(sleep(pause)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_over_the_burst_comes_slowly_and_whole() {
        const BURST: usize = 50_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = vec![7; BURST + RATE as usize / 2];
        let expected = sent.len();
        tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&sent).await.unwrap();
        });
        let (stream, _) = listener.accept().await.unwrap();
        let stats = Arc::new(Stats::default());
        let mut metered = Metered::new(stream, BURST, stats.clone());
        let start = Instant::now();
        let mut read = Vec::new();
        metered.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), expected);
        assert!(start.elapsed() > Duration::from_millis(300));
        assert!(stats.rate_limited.load(Relaxed) > 0);
    }
}
