//! Who takes part: rooms, and in each of them publishers and subscribers.

use std::time::Duration;

use super::impairment::{self, Impairment};
use super::pacing::Pacing;

/// Most participants of a plan. Each has two file descriptors and 100 KB of memory here.
pub const PARTICIPANTS_MAX: usize = 20_000;

/// Longest measurement: it keeps a line for every second.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Shapes of calls that come often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// One room of 8 who all publish: everybody receives 7.
    Conference,
    /// One room, one publisher and 60 subscribers.
    Webinar,
    /// 25 rooms of 3 who all publish.
    Rooms,
    /// 20 rooms of 10, of whom one publishes; each second 20 leave and others join.
    Churn,
    /// One room with one publisher; subscribers join, 10 in a second and 2000 at most, until the
    /// server is at its limit.
    Ramp,
}

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rooms.
    pub rooms: usize,
    /// Participants of each room that publish a camera and a microphone, and hear the others.
    pub publishers: usize,
    /// Participants of each room that only hear.
    pub subscribers: usize,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many take part.
    pub shape: Shape,
    /// How many join in a second.
    pub join_rate: u32,
    /// How long to wait once everybody has joined.
    pub warmup: Duration,
    /// How long to measure after it.
    pub duration: Duration,
    /// How many leave in each second of it, and others join in their places.
    pub churn: u32,
    /// Whether it is measured while people join, up to the limit of the server.
    pub ramp: bool,
    /// Bad networks of some of those who only receive.
    pub impairments: Vec<Impairment>,
    /// Decides what happens there to each datagram.
    pub seed: u64,
    /// How publishers send.
    pub pacing: Pacing,
    /// The server, if it runs on this host.
    pub pid: Option<u32>,
}

/// One participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its place among all.
    pub number: usize,
    /// How many were in this place before.
    pub turn: u32,
    /// Its room.
    pub room: usize,
    /// Whether it publishes.
    pub publishes: bool,
    /// How many others it hears.
    pub hears: usize,
    /// Its network: 0 is a good one, others are impairments of the plan, counted from 1.
    pub network: usize,
}

impl Preset {
    /// Its numbers.
    pub fn shape(self) -> Shape {
        let (rooms, publishers, subscribers) = match self {
            Self::Conference => (1, 8, 0),
            Self::Webinar => (1, 1, 60),
            Self::Rooms => (25, 3, 0),
            Self::Churn => (20, 1, 9),
            Self::Ramp => (1, 1, 2000),
        };
        Shape {
            rooms,
            publishers,
            subscribers,
        }
    }

    /// How many leave in a second.
    pub fn churn(self) -> u32 {
        match self {
            Self::Churn => 20,
            Self::Conference | Self::Webinar | Self::Rooms | Self::Ramp => 0,
        }
    }

    /// How many join in a second.
    pub fn join_rate(self) -> u32 {
        match self {
            Self::Ramp => 10,
            Self::Conference | Self::Webinar | Self::Rooms | Self::Churn => 50,
        }
    }

    /// How long to measure.
    pub fn duration(self) -> Duration {
        match self {
            Self::Ramp => Duration::from_secs(600),
            Self::Conference | Self::Webinar | Self::Rooms | Self::Churn => Duration::from_secs(30),
        }
    }
}

impl Shape {
    /// What is wrong with it, if anything is.
    pub fn problem(&self) -> Option<String> {
        let each = self.publishers.saturating_add(self.subscribers);
        let all = each.saturating_mul(self.rooms);
        match all {
            0 => Some("nobody takes part: give --publishers or --subscribers".to_owned()),
            all if all > PARTICIPANTS_MAX => Some(format!(
                "{all} participants are more than {PARTICIPANTS_MAX}"
            )),
            _ => None,
        }
    }

    /// Everybody, room by room, those who publish first: then a room is complete early.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let (publishers, each) = (self.publishers, self.publishers + self.subscribers);
        (0..self.rooms * each).map(move |number| {
            let publishes = number % each < publishers;
            Part {
                number,
                turn: 0,
                room: number / each,
                publishes,
                hears: publishers - usize::from(publishes),
                network: 0,
            }
        })
    }

    /// All who only receive.
    fn subscribers_of_all(&self) -> usize {
        self.rooms.saturating_mul(self.subscribers)
    }
}

impl Plan {
    /// What is wrong with it, if anything is.
    pub fn problem(&self) -> Option<String> {
        if self.ramp && !self.impairments.is_empty() {
            // What they lose and wait for would be taken for the server's limit.
            let problem =
                "--impaired can't be beside the preset ramp, which ends at loss and delay";
            return Some(format!("{problem}: give another --preset"));
        }
        let subscribers = self.shape.subscribers_of_all();
        let shape = self.shape.problem();
        shape.or_else(|| impairment::problem(&self.impairments, subscribers))
    }

    /// Everybody, as their shape has them, with their networks.
    pub fn parts(&self) -> Vec<Part> {
        let networks = impairment::networks(&self.impairments, self.shape.subscribers_of_all());
        let mut networks = networks.into_iter();
        let mut parts: Vec<_> = self.shape.parts().collect();
        for part in parts.iter_mut().filter(|part| !part.publishes) {
            part.network = networks.next().unwrap_or(0);
        }
        parts
    }
}

impl Part {
    /// What its server calls it.
    pub fn identity(&self) -> String {
        format!("load-{}-{}", self.number, self.turn)
    }

    /// The next one in its place.
    pub fn successor(self) -> Self {
        Self {
            turn: self.turn + 1,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_room_and_somebody_to_hear() {
        let shape = Shape {
            rooms: 2,
            publishers: 2,
            subscribers: 1,
        };
        let parts: Vec<_> = shape.parts().collect();
        let told: Vec<_> = parts
            .iter()
            .map(|it| (it.room, it.publishes, it.hears))
            .collect();
        let room = |room| [(room, true, 1), (room, true, 1), (room, false, 2)];
        assert_eq!(told, [room(0), room(1)].concat());
        assert!(parts.iter().enumerate().all(|(at, part)| part.number == at));
    }

    #[test]
    fn presets_are_what_they_say() {
        let count = |preset: Preset| {
            let parts: Vec<_> = preset.shape().parts().collect();
            let heard: usize = parts.iter().map(|part| part.hears).sum();
            (parts.len(), heard)
        };
        assert_eq!(count(Preset::Conference), (8, 56));
        assert_eq!(count(Preset::Webinar), (61, 60));
        assert_eq!(count(Preset::Rooms), (75, 150));
        assert_eq!(count(Preset::Churn), (200, 180));
    }

    #[test]
    fn only_those_who_only_receive_have_bad_networks() {
        let mut plan = Plan {
            shape: Shape {
                rooms: 2,
                publishers: 1,
                subscribers: 2,
            },
            join_rate: 1,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            churn: 0,
            ramp: false,
            impairments: vec!["50%:loss=2".parse().expect("an impairment")],
            seed: 0,
            pacing: Pacing::Chromium,
            pid: None,
        };
        assert_eq!(plan.problem(), None);
        let networks: Vec<_> = plan.parts().iter().map(|part| part.network).collect();
        assert_eq!(networks, [0, 1, 0, 0, 1, 0]);
        assert_eq!(plan.parts()[1].successor().network, 1);
        plan.ramp = true;
        let problem = plan.problem().unwrap_or_default();
        assert!(problem.contains("another --preset"), "{problem}");
    }

    #[test]
    fn nobody_and_too_many_are_refused() {
        let shape = |rooms, publishers, subscribers| Shape {
            rooms,
            publishers,
            subscribers,
        };
        assert_eq!(shape(1, 1, 0).problem(), None);
        assert!(shape(0, 1, 1).problem().is_some());
        assert!(shape(1, 0, 0).problem().is_some());
        assert!(shape(usize::MAX, 2, 3).problem().is_some());
        assert_eq!(shape(0, 0, 0).parts().count(), 0);
    }
}
