//! The networks that are tried, and what must come of each.

use std::time::Duration;

use crate::sim::bottleneck::{Course, Rival};
use crate::sim::{Element, Link};
use crate::units::Bitrate;

/// One network over time.
#[derive(Debug)]
pub struct Scenario {
    /// Its short name, as on the command line.
    pub id: &'static str,
    /// What happens.
    pub what: &'static str,
    /// How long it lasts from when the viewer enters, in seconds.
    pub seconds: u64,
    /// Who publishes a camera to the viewer; the first has a microphone too.
    pub publishers: usize,
    /// How many watch, each over a link of its own like this.
    pub viewers: usize,
    /// What the publisher's uplink carries and its queue holds, if that is little. Its encoder
    /// follows it.
    pub uplink: Option<(Course, u64)>,
    /// What the viewer's downlink carries.
    pub course: Course,
    /// Bytes that may wait for it.
    pub queue: u64,
    /// Who else uses it.
    pub rival: Option<Rival>,
    /// What else is between, in both directions.
    pub delay: Duration,
    /// What else is in the way down.
    pub also: Option<Element>,
    /// From which second to which the network is worse than before and after.
    pub trouble: Option<(u64, u64)>,
    /// What must come of it.
    pub targets: &'static [Target],
}

/// What is measured of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Media received of what the link or the publishers could give, 0 to 1.
    Use,
    /// Video received of the best step of the ladder that fits the link, 0 to 1.
    LadderUse,
    /// Share of the time in which the picture stood, in percent.
    Freeze,
    /// The longest time the picture stood, in seconds.
    FreezeLongest,
    /// 95 of 100 packets took at most so much longer than the fastest, in milliseconds.
    Delay,
    /// Changes of the picture's size in a minute, for each picture.
    Switches,
    /// From entering to the first packet of the layer that is seen at the end, in seconds.
    Start,
    /// From the end of the trouble until nine tenths of the rate before it are back, in seconds.
    Recovery,
    /// From the beginning of the trouble until the estimate is no more than a tenth above it.
    Fall,
    /// From when a publisher ends its largest layer until all viewers see another, in seconds.
    Lower,
    /// Sound that never came, in percent.
    SoundLost,
    /// The longest gap in the sound, in milliseconds.
    SoundGap,
    /// Key frames made in a minute, for each track.
    KeyFrames,
    /// Media received of what the link carries while somebody else uses it, 0 to 1.
    Share,
    /// Pictures that move at the end, of all, 0 to 1: at full frame rate, or at half of it where
    /// they are larger than the smallest.
    Moving,
}

impl Figure {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 15] = [
        Self::Use,
        Self::LadderUse,
        Self::Start,
        Self::Fall,
        Self::Lower,
        Self::Recovery,
        Self::Freeze,
        Self::FreezeLongest,
        Self::Delay,
        Self::Switches,
        Self::KeyFrames,
        Self::SoundLost,
        Self::SoundGap,
        Self::Share,
        Self::Moving,
    ];

    /// As a column is called.
    pub fn label(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::LadderUse => "ladder",
            Self::Freeze => "freeze %",
            Self::FreezeLongest => "longest s",
            Self::Delay => "p95 ms",
            Self::Switches => "switch/min",
            Self::Start => "start s",
            Self::Recovery => "recover s",
            Self::Fall => "fall s",
            Self::Lower => "lower s",
            Self::SoundLost => "sound %",
            Self::SoundGap => "gap ms",
            Self::KeyFrames => "key/min",
            Self::Share => "share",
            Self::Moving => "moving",
        }
    }
}

/// A bound that a figure must keep.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Which figure.
    pub figure: Figure,
    /// The bound.
    pub bound: Bound,
    /// What is kept today where the bound isn't: no more than that may come of it.
    pub known_miss: Option<f64>,
}

/// A bound.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// No more than this.
    Most(f64),
    /// No less than this.
    Least(f64),
}

impl Target {
    const fn most(figure: Figure, bound: f64) -> Self {
        Self {
            figure,
            bound: Bound::Most(bound),
            known_miss: None,
        }
    }

    const fn least(figure: Figure, bound: f64) -> Self {
        Self {
            figure,
            bound: Bound::Least(bound),
            known_miss: None,
        }
    }

    /// The target is missed so far, by no more than this.
    const fn missed_by(self, known: f64) -> Self {
        Self {
            known_miss: Some(known),
            ..self
        }
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Bytes that a link of so many kbit/s carries in that time.
const fn queue(kbps: u64, millis: u64) -> u64 {
    kbps * millis / 8
}

/// One publisher, 20 ms each way, nothing else.
const PLAIN: Scenario = Scenario {
    id: "",
    what: "",
    seconds: 60,
    publishers: 1,
    viewers: 1,
    uplink: None,
    course: Course::Steps(&[(0, 3000)]),
    queue: queue(3000, 300),
    rival: None,
    delay: ms(20),
    also: None,
    trouble: None,
    targets: &[],
};

use Figure::{
    Delay, Fall, Freeze, FreezeLongest, LadderUse, Lower, Moving, Recovery, Share, SoundGap,
    SoundLost, Start, Switches, Use,
};

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "01",
        what: "0.3 Mbit/s",
        course: Course::Steps(&[(0, 300)]),
        queue: queue(300, 300),
        targets: &[
            Target::least(LadderUse, 0.90),
            Target::most(Freeze, 1.0),
            Target::most(Delay, 150.0),
            Target::most(Switches, 4.0),
            Target::most(SoundLost, 0.5),
        ],
        ..PLAIN
    },
    Scenario {
        id: "02",
        what: "1 Mbit/s",
        course: Course::Steps(&[(0, 1000)]),
        queue: queue(1000, 300),
        targets: &[
            Target::least(LadderUse, 0.95),
            Target::most(Freeze, 0.0),
            Target::most(Delay, 60.0),
            Target::most(Switches, 2.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "03",
        what: "3 Mbit/s",
        targets: &[
            Target::least(Use, 0.97),
            Target::most(Start, 1.0),
            Target::most(Delay, 60.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "04",
        what: "10 Mbit/s, 0.25 for half a minute",
        seconds: 180,
        course: Course::Steps(&[(0, 10_000), (60, 250), (90, 10_000)]),
        queue: 37_500,
        trouble: Some((60, 90)),
        targets: &[
            Target::most(Recovery, 5.0),
            Target::most(Freeze, 1.5),
            Target::most(FreezeLongest, 1.5),
            Target::most(Fall, 2.0),
            Target::most(SoundLost, 0.5),
            Target::most(SoundGap, 200.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "05",
        what: "3 Mbit/s, 1 for half a minute",
        seconds: 120,
        course: Course::Steps(&[(0, 3000), (30, 1000), (60, 3000)]),
        queue: queue(1000, 300),
        trouble: Some((30, 60)),
        targets: &[
            Target::most(Recovery, 4.0),
            Target::most(Freeze, 0.5),
            Target::least(Use, 0.93),
        ],
        ..PLAIN
    },
    Scenario {
        id: "06a",
        what: "1 % lost",
        also: Some(Element::Loss(0.01)),
        targets: &[
            Target::least(Use, 0.97),
            Target::most(Freeze, 0.2),
            Target::most(SoundLost, 0.1),
        ],
        ..PLAIN
    },
    Scenario {
        id: "06b",
        what: "5 % lost",
        also: Some(Element::Loss(0.05)),
        targets: &[
            Target::least(Use, 0.95),
            Target::most(Freeze, 0.5),
            Target::most(SoundLost, 0.3),
        ],
        ..PLAIN
    },
    Scenario {
        id: "06c",
        what: "10 % lost",
        also: Some(Element::Loss(0.10)),
        targets: &[
            Target::least(Use, 0.90),
            Target::most(Freeze, 1.5),
            Target::most(SoundLost, 1.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "06d",
        what: "20 % lost",
        also: Some(Element::Loss(0.20)),
        targets: &[
            Target::least(Use, 0.50),
            Target::most(Freeze, 4.0),
            Target::most(Delay, 300.0),
            Target::most(SoundLost, 2.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "07",
        what: "5 % lost in bursts",
        also: Some(Element::BurstLoss {
            enter: 0.0125,
            leave: 0.2,
            loss: 0.85,
        }),
        targets: &[
            Target::least(Use, 0.95),
            Target::most(Freeze, 1.0),
            Target::most(Delay, 120.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "08a",
        what: "up to 30 ms of jitter",
        also: Some(Element::Jitter(ms(30))),
        targets: &[
            Target::least(Use, 0.95),
            Target::most(Freeze, 0.0),
            Target::most(Switches, 3.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "08b",
        what: "up to 100 ms of jitter",
        also: Some(Element::Jitter(ms(100))),
        targets: &[
            Target::least(Use, 0.95),
            Target::most(Freeze, 0.0),
            Target::most(Switches, 3.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "09a",
        what: "100 ms round trip",
        delay: ms(50),
        targets: &[
            Target::least(Use, 0.97),
            Target::most(Freeze, 0.0),
            Target::most(Start, 1.5),
        ],
        ..PLAIN
    },
    Scenario {
        id: "09b",
        what: "300 ms round trip",
        delay: ms(150),
        targets: &[
            Target::least(Use, 0.97),
            Target::most(Freeze, 0.0),
            Target::most(Start, 2.5),
        ],
        ..PLAIN
    },
    Scenario {
        id: "10a",
        what: "1 Mbit/s, short queue",
        course: Course::Steps(&[(0, 1000)]),
        queue: queue(1000, 100),
        targets: &[
            Target::least(LadderUse, 0.95),
            Target::most(Freeze, 0.0),
            Target::most(Delay, 60.0),
            Target::most(Switches, 2.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "10b",
        what: "1 Mbit/s, long queue",
        course: Course::Steps(&[(0, 1000)]),
        queue: queue(1000, 1000),
        targets: &[
            Target::least(LadderUse, 0.95),
            Target::most(Freeze, 0.0),
            Target::most(Delay, 60.0),
            Target::most(Switches, 2.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "11a",
        what: "2 Mbit/s, another takes 1",
        seconds: 100,
        course: Course::Steps(&[(0, 2000)]),
        queue: queue(2000, 300),
        rival: Some(Rival::Constant {
            kbps: 1000,
            span: (20, 60),
        }),
        trouble: Some((20, 60)),
        targets: &[
            Target::most(Recovery, 6.0),
            Target::most(Freeze, 1.0),
            Target::most(Delay, 150.0),
            Target::least(LadderUse, 0.90),
        ],
        ..PLAIN
    },
    Scenario {
        id: "11b",
        what: "2 Mbit/s, a transfer beside it",
        seconds: 120,
        course: Course::Steps(&[(0, 2000)]),
        queue: queue(2000, 100),
        rival: Some(Rival::Transfer {
            round_trip: ms(40),
            span: (20, 80),
        }),
        trouble: Some((20, 80)),
        targets: &[
            Target::least(Share, 0.35).missed_by(0.20),
            Target::most(Share, 0.60),
            Target::most(Freeze, 2.0).missed_by(4.5),
            Target::most(Recovery, 6.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "12",
        what: "a mobile network",
        seconds: 120,
        course: Course::Cell {
            least: 250,
            middle: 2200,
        },
        queue: 125_000,
        delay: ms(30),
        targets: &[
            Target::least(Use, 0.75).missed_by(0.68),
            Target::most(Freeze, 2.0),
            Target::most(Delay, 250.0).missed_by(300.0),
            Target::most(Switches, 12.0).missed_by(20.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "13",
        what: "5 Mbit/s, nothing for two seconds",
        seconds: 90,
        course: Course::Steps(&[(0, 5000), (40, 0), (42, 5000)]),
        queue: queue(5000, 300),
        trouble: Some((40, 42)),
        targets: &[Target::most(Recovery, 1.0)],
        ..PLAIN
    },
    Scenario {
        id: "14",
        what: "2 % of the packets 20 ms late",
        also: Some(Element::Reorder(0.02, ms(20))),
        targets: &[Target::least(Use, 0.97), Target::most(Freeze, 0.2)],
        ..PLAIN
    },
    Scenario {
        id: "15",
        what: "the publisher's uplink, 0.5 Mbit/s for half a minute",
        seconds: 120,
        viewers: 3,
        uplink: Some((
            Course::Steps(&[(0, 10_000), (34, 500), (64, 10_000)]),
            37_500,
        )),
        course: Course::Steps(&[(0, 10_000)]),
        queue: queue(10_000, 300),
        targets: &[
            Target::most(Lower, 1.0).missed_by(1.3),
            Target::most(Freeze, 0.5).missed_by(2.0),
            Target::most(SoundLost, 0.0).missed_by(0.1),
        ],
        ..PLAIN
    },
    Scenario {
        id: "16",
        what: "nine pictures over 4 Mbit/s",
        publishers: 9,
        course: Course::Steps(&[(0, 4000)]),
        queue: queue(4000, 300),
        targets: &[
            Target::least(Moving, 1.0),
            Target::least(Use, 0.90),
            Target::most(Delay, 120.0),
            Target::most(Switches, 4.0),
        ],
        ..PLAIN
    },
    Scenario {
        id: "17",
        what: "nine pictures over 2 Mbit/s",
        publishers: 9,
        course: Course::Steps(&[(0, 2000)]),
        queue: queue(2000, 300),
        targets: &[
            Target::least(Moving, 1.0),
            Target::most(Delay, 120.0),
            Target::most(Switches, 4.0),
        ],
        ..PLAIN
    },
];

impl Scenario {
    /// What a rival that doesn't yield leaves of the link.
    pub fn capacity(&self, passed: Duration) -> Bitrate {
        let all = self.course.at(passed);
        match self.rival {
            Some(Rival::Constant { kbps, span })
                if (span.0..span.1).contains(&passed.as_secs()) =>
            {
                all.saturating_sub(Bitrate::kbps(kbps))
            }
            _ => all,
        }
    }

    /// How many pictures are seen.
    pub fn pictures(&self) -> usize {
        self.publishers * self.viewers
    }

    /// A publisher's connection, if it is worth no more than this.
    pub fn uplink(&self) -> Option<Link> {
        let (course, queue) = self.uplink?;
        let delay = Element::Delay(self.delay);
        Some(Link {
            up: vec![Element::Course(course, queue, None), delay],
            down: vec![delay],
        })
    }

    /// The viewer's connection.
    pub fn link(&self) -> Link {
        let delay = Element::Delay(self.delay);
        let mut down = vec![Element::Course(self.course, self.queue, self.rival), delay];
        let mut up = vec![delay];
        match self.also {
            Some(Element::Jitter(most)) => {
                down.push(Element::Jitter(most));
                up.push(Element::Jitter(most / 2));
            }
            Some(element) => down.push(element),
            None => {}
        }
        Link { up, down }
    }
}
