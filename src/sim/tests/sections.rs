//! Media sections come back into use: they don't grow with the tracks that come and go.

use std::collections::HashSet;

use super::{millis, secs};
use crate::ids::TrackSid;
use crate::media::message::Kind;
use crate::sim::{Link, Medium, Meeting};

/// Sections of the first offer; more than these are only made when they are needed.
const SPARE: usize = 6;

fn walk(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut meeting = Meeting::seeded(seed);
    meeting.enter("anna", Link::broadband());
    meeting.enter("bert", Link::broadband());
    let mut to_come: Vec<Medium> = (0..20)
        .flat_map(|number| {
            let microphone = Medium::microphone(&format!("microphone {number}"));
            [microphone, Medium::thumbnail(&format!("camera {number}"))]
        })
        .collect();
    random.shuffle(&mut to_come);
    let mut there: Vec<String> = Vec::new();
    let mut published: HashSet<TrackSid> = HashSet::new();
    let (mut peak, mut most) = (0, 0);
    while !to_come.is_empty() || !there.is_empty() {
        let comes = there.is_empty() || random.u8(..100) < 60;
        match to_come.pop_if(|_| comes) {
            Some(medium) => {
                there.push(medium.cid.clone());
                meeting.publish("bert", medium);
            }
            None => {
                let gone = there.swap_remove(random.usize(..there.len()));
                meeting.unpublish("bert", &gone);
            }
        }
        peak = peak.max(there.len());
        meeting.run(millis(random.u64(20..400)));
        published.extend(
            meeting
                .client("bert")
                .published
                .iter()
                .filter_map(|own| own.sid.clone()),
        );
        most = most.max(meeting.client("anna").sections.len());
        assert!(
            most <= peak + SPARE,
            "{most} sections, at most {peak} tracks"
        );
    }
    meeting.run(secs(1));
    assert_eq!(published.len(), 40);
    assert!(
        peak > SPARE,
        "more than the first offer has room for: {peak}"
    );
    let anna = meeting.client("anna");
    let raised: HashSet<_> = anna.raised.iter().cloned().collect();
    // What went before its section was answered never came.
    let missing = published.difference(&raised).count();
    assert_eq!(
        (anna.raised.len(), missing),
        (raised.len(), 0),
        "every track, once"
    );
    let silent = anna.incoming.values().filter(|stream| stream.packets == 0);
    assert!(silent.clone().count() <= 4, "{}", silent.count());
    let kinds = [Kind::Audio, Kind::Video].map(|kind| {
        anna.incoming
            .values()
            .filter(|stream| stream.kind == kind)
            .count()
    });
    assert_eq!(kinds, [20, 20]);
    meeting.assert_blameless();
}

#[test]
fn forty_tracks_come_and_go_in_few_sections() {
    for seed in 1..=5 {
        walk(seed);
    }
}
