//! The network between a client and the shard: elements composed in a row, one row for each
//! direction. A datagram passes them in order; each delays it or loses it.
//!
//! A path decides at the moment of sending when a datagram will arrive, so it holds no datagrams
//! itself. What is under way when a link changes arrives as it was decided.

use std::time::{Duration, Instant};

use super::bottleneck::{Bottleneck, Course, Rival};
use crate::units::Bitrate;

/// One property of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    /// Every datagram takes this long.
    Delay(Duration),
    /// Every datagram takes between nothing and this long more; their order is kept.
    Jitter(Duration),
    /// This share of datagrams is lost, each by itself.
    Loss(f64),
    /// Losses come in bursts (Gilbert-Elliott): two states, the bad one of which loses.
    BurstLoss {
        /// Chance of entering the bad state, per datagram.
        enter: f64,
        /// Chance of leaving it, per datagram.
        leave: f64,
        /// Share lost while in it.
        loss: f64,
    },
    /// A bottleneck: datagrams leave at this rate, and wait in a queue that drops what doesn't fit.
    Rate(Bitrate, Queue),
    /// A bottleneck whose rate changes, with a queue of so many bytes that others may share.
    Course(Course, u64, Option<Rival>),
    /// This share of datagrams takes so much longer and is overtaken.
    Reorder(f64, Duration),
    /// Nothing passes.
    Partition,
}

/// How much a bottleneck lets wait before it drops the newest (tail drop).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// As much as leaves within this time.
    Time(Duration),
    /// So many bytes.
    Bytes(u64),
}

/// Both directions of somebody's connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// From the client to the shard.
    pub up: Vec<Element>,
    /// From the shard to the client.
    pub down: Vec<Element>,
}

impl Link {
    /// 20 ms each way and nothing else.
    pub fn broadband() -> Self {
        let delay = vec![Element::Delay(Duration::from_millis(20))];
        Self {
            up: delay.clone(),
            down: delay,
        }
    }

    /// Broadband on which this share of datagrams is lost, each way.
    pub fn lossy(share: f64) -> Self {
        Self::broadband().with(Element::Loss(share))
    }

    /// Broadband with a downlink of this rate and a queue of 300 ms.
    pub fn narrow(rate: Bitrate) -> Self {
        let mut link = Self::broadband();
        let queue = Queue::Time(Duration::from_millis(300));
        link.down.push(Element::Rate(rate, queue));
        link
    }

    /// The same with one more element at the end of each row.
    pub fn with(mut self, element: Element) -> Self {
        self.up.push(element);
        self.down.push(element);
        self
    }
}

/// One direction, with the state its elements need.
#[derive(Debug)]
pub struct Path {
    stages: Vec<Stage>,
    random: fastrand::Rng,
}

impl Path {
    /// A path of these elements; `random` decides about each datagram.
    pub fn new(elements: &[Element], random: fastrand::Rng) -> Self {
        let stages = elements.iter().copied().map(Stage::new).collect();
        Self { stages, random }
    }

    /// When a datagram of `bytes` that is sent now arrives, if it does.
    pub fn carry(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let wire = (bytes + IP_UDP_BYTES) as u64;
        self.stages
            .iter_mut()
            .try_fold(now, |at, stage| stage.pass(at, wire, &mut self.random))
    }

    /// What came through of those who share its bottlenecks, in bytes.
    pub fn rival_bytes(&self) -> u64 {
        let stages = self.stages.iter();
        let bottlenecks = stages.filter_map(|stage| stage.bottleneck.as_ref());
        bottlenecks.map(|it| it.rival_bytes).sum()
    }

    /// Whether datagrams arrive in the order they are sent.
    pub fn keeps_order(&self) -> bool {
        let reorders = |stage: &Stage| matches!(stage.element, Element::Reorder(..));
        !self.stages.iter().any(reorders)
    }
}

/// What a bottleneck counts beside the datagram: IPv4 and UDP headers.
const IP_UDP_BYTES: usize = 28;

/// An element at work.
#[derive(Debug)]
struct Stage {
    element: Element,
    /// Jitter: nothing leaves before this. Rate: the queue is empty at this time.
    busy_until: Option<Instant>,
    /// Burst loss is in its bad state.
    bad: bool,
    /// Of a course, from its first datagram on.
    bottleneck: Option<Box<Bottleneck>>,
}

impl Stage {
    fn new(element: Element) -> Self {
        Self {
            element,
            busy_until: None,
            bad: false,
            bottleneck: None,
        }
    }

    fn pass(&mut self, at: Instant, bytes: u64, random: &mut fastrand::Rng) -> Option<Instant> {
        match self.element {
            Element::Delay(delay) => Some(at + delay),
            Element::Jitter(most) => {
                let late = at + most.mul_f64(random.f64());
                let leaves = self.busy_until.map_or(late, |before| before.max(late));
                self.busy_until = Some(leaves);
                Some(leaves)
            }
            Element::Loss(share) => (random.f64() >= share).then_some(at),
            Element::BurstLoss { enter, leave, loss } => {
                let turn = if self.bad { leave } else { enter };
                self.bad ^= random.f64() < turn;
                (!self.bad || random.f64() >= loss).then_some(at)
            }
            Element::Rate(rate, queue) => self.queue(at, bytes, rate, queue),
            Element::Course(course, queue, rival) => {
                let new = || Box::new(Bottleneck::new(course, queue, rival, at));
                self.bottleneck.get_or_insert_with(new).pass(at, bytes)
            }
            Element::Reorder(share, by) => match random.f64() < share {
                true => Some(at + by),
                false => Some(at),
            },
            Element::Partition => None,
        }
    }

    fn queue(&mut self, at: Instant, bytes: u64, rate: Bitrate, queue: Queue) -> Option<Instant> {
        let starts = self.busy_until.map_or(at, |busy| busy.max(at));
        let waits = starts.saturating_duration_since(at);
        let room = match queue {
            Queue::Time(most) => most,
            Queue::Bytes(most) => rate.time_for(most.saturating_sub(bytes)),
        };
        if rate == Bitrate::ZERO || waits > room {
            return None;
        }
        let leaves = starts + rate.time_for(bytes);
        self.busy_until = Some(leaves);
        Some(leaves)
    }
}
