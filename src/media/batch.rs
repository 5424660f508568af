//! Datagrams for one destination, back to back in one buffer, cut into runs that one system call
//! can send (UDP generic segmentation offload): equal sizes, only the last may be shorter.

use std::ops::Range;

/// Most datagrams of a run (UDP_MAX_SEGMENTS of the kernel).
const SEGMENTS_MAX: usize = 64;

/// Most bytes of a run: what fits an IPv4 datagram's length field, with room for headers.
const RUN_BYTES_MAX: usize = 65_000;

/// Most bytes waiting. One wake of a worker yields far less; past this datagrams are dropped.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Memory kept from one wake to the next.
const KEPT_BYTES_MAX: usize = 128 << 10;

/// Datagrams that wait for the end of a wake.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: Vec<u8>,
    runs: Vec<Run>,
    /// How many runs were taken.
    taken: usize,
}

/// Datagrams that can leave in one call.
#[derive(Debug, Clone)]
struct Run {
    bytes: Range<usize>,
    /// Size of each but the last.
    segment: usize,
    /// A shorter one came: nothing may follow.
    closed: bool,
}

impl Batch {
    /// The buffer, to write the next datagram at its end; `None` when too much waits.
    pub fn begin(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let start = self.buffer.len();
        (start < BATCH_BYTES_MAX).then_some((&mut self.buffer, start))
    }

    /// The size of the datagrams of the run that the next one may prolong.
    pub fn segment(&self) -> Option<usize> {
        let run = self.runs.last().filter(|_| self.taken == 0)?;
        let prolongs = !run.closed
            && run.bytes.end == self.buffer.len()
            && run.bytes.len() + run.segment <= RUN_BYTES_MAX
            && run.bytes.len() / run.segment + 1 < SEGMENTS_MAX;
        prolongs.then_some(run.segment)
    }

    /// The datagram that was begun at `start` is complete.
    pub fn commit(&mut self, start: usize) {
        let end = self.buffer.len();
        let size = end - start;
        if let Some(run) = self.runs.last_mut().filter(|_| self.taken == 0)
            && !run.closed
            && run.bytes.end == start
            && size <= run.segment
            && run.bytes.len() + size <= RUN_BYTES_MAX
            && run.bytes.len() / run.segment + 1 < SEGMENTS_MAX
        {
            run.bytes.end = end;
            run.closed = size < run.segment;
            return;
        }
        self.runs.push(Run {
            bytes: start..end,
            segment: size,
            closed: false,
        });
    }

    /// Takes back what was written from `start` on: it will not be sent.
    pub fn abort(&mut self, start: usize) {
        self.buffer.truncate(start);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.taken == self.runs.len()
    }

    /// The next run and the size of its datagrams if there are several.
    pub fn take(&mut self) -> Option<(&[u8], Option<usize>)> {
        let run = self.runs.get(self.taken)?;
        self.taken += 1;
        let several = run.bytes.len() > run.segment;
        Some((
            &self.buffer[run.bytes.clone()],
            several.then_some(run.segment),
        ))
    }

    /// Takes memory to write to, unless it has some.
    pub fn borrow(&mut self, spare: &mut Vec<u8>) {
        if self.buffer.capacity() == 0 {
            std::mem::swap(&mut self.buffer, spare);
        }
    }

    /// Everything was taken: starts over with the same memory, unless a burst made it large.
    pub fn clear(&mut self) {
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.runs.clear();
        self.taken = 0;
    }

    /// Gives memory back that is not needed now.
    pub fn give_back(&mut self, spare: &mut Vec<u8>) {
        if self.buffer.is_empty() && self.buffer.capacity() > spare.capacity() {
            *spare = std::mem::take(&mut self.buffer);
        }
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut Batch, size: usize) {
        let (buffer, start) = batch.begin().expect("room");
        buffer.resize(start + size, 0);
        batch.commit(start);
    }

    fn runs(batch: &mut Batch) -> Vec<(usize, Option<usize>)> {
        let mut list = Vec::new();
        while let Some((bytes, segment)) = batch.take() {
            list.push((bytes.len(), segment));
        }
        batch.clear();
        list
    }

    #[test]
    fn equal_sizes_run_together_and_a_shorter_one_ends_the_run() {
        let mut batch = Batch::default();
        for size in [1000, 1000, 400, 1000, 1200, 300] {
            push(&mut batch, size);
        }
        let expected = [(2400, Some(1000)), (1000, None), (1500, Some(1200))];
        assert_eq!(runs(&mut batch), expected);
        assert!(batch.is_empty());
    }

    #[test]
    fn a_run_tells_what_would_prolong_it() {
        let mut batch = Batch::default();
        assert_eq!(batch.segment(), None);
        push(&mut batch, 1000);
        assert_eq!(batch.segment(), Some(1000));
        push(&mut batch, 999);
        // The shorter one has ended it.
        assert_eq!(batch.segment(), None);
        for _ in 1..SEGMENTS_MAX {
            push(&mut batch, 100);
        }
        assert_eq!(batch.segment(), None);
        assert_eq!(runs(&mut batch).len(), 2);
        assert_eq!(batch.segment(), None);
    }

    #[test]
    fn a_run_keeps_to_what_the_kernel_takes() {
        let mut batch = Batch::default();
        for _ in 0..130 {
            push(&mut batch, 100);
        }
        for (bytes, segment) in runs(&mut batch) {
            assert!(bytes <= 64 * 100, "{bytes} {segment:?}");
        }
        for _ in 0..60 {
            push(&mut batch, 1400);
        }
        assert!(
            runs(&mut batch)
                .iter()
                .all(|(bytes, _)| *bytes <= RUN_BYTES_MAX)
        );
    }

    #[test]
    fn what_is_aborted_is_not_sent() {
        let mut batch = Batch::default();
        push(&mut batch, 10);
        let (buffer, start) = batch.begin().expect("room");
        buffer.extend([0; 10]);
        batch.abort(start);
        push(&mut batch, 10);
        assert_eq!(runs(&mut batch), [(20, Some(10))]);
    }
}
