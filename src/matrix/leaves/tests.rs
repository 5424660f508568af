//! What becomes of a leave, told on a clock of its own.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    start: Instant,
    now: Instant,
    leaves: Leaves,
    ended: Vec<Key>,
}

fn anna() -> Key {
    ("red".into(), "anna".into())
}

impl World {
    fn new(present: bool) -> Self {
        let now = Instant::now();
        let mut world = Self {
            start: now,
            now,
            leaves: Leaves::default(),
            ended: Vec::new(),
        };
        world.entrust("1", present);
        world
    }

    fn entrust(&mut self, id: &str, present: bool) {
        self.entrust_for(HOUR, id, present);
    }

    fn entrust_for(&mut self, delay: Duration, id: &str, present: bool) {
        let leave = Leave {
            user: UserId::new("@anna:example.org").unwrap(),
            id: id.to_owned(),
            delay,
        };
        assert!(self.leaves.entrust(self.now, anna(), leave, present));
    }

    /// Goes to when something is to be done, and says after which time that is from the start.
    fn next(&mut self) -> (Duration, Due) {
        self.now = self.now.max(self.leaves.wake().expect("something to do"));
        let due = self.leaves.due(self.now, &mut self.ended);
        (self.now - self.start, due.expect("something due"))
    }

    fn expect(&mut self, seconds: u64, deed: Deed, outcome: Outcome) -> Kept {
        let (at, due) = self.next();
        assert_eq!((at, due.deed), (Duration::from_secs(seconds), deed));
        self.leaves.done(self.now, &due, outcome)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn who_is_there_is_kept_there_and_who_goes_goes_at_once() {
    let mut world = World::new(false);
    world.wait(5);
    world.leaves.joined(world.now, &anna());
    assert_eq!(
        world.expect(5, Deed::Restart, Outcome::Done),
        Kept::Restarted
    );
    assert_eq!(
        world.expect(2885, Deed::Restart, Outcome::Done),
        Kept::Restarted
    );
    world.wait(10);
    world.leaves.left(world.now, &anna());
    assert_eq!(world.expect(2895, Deed::Send, Outcome::Done), Kept::Ended);
    assert!(!world.leaves.has(&anna()) && world.leaves.wake().is_none());
}

#[test]
fn who_never_comes_goes_after_the_delay_and_an_aborted_attempt_changes_nothing() {
    let mut world = World::new(false);
    world.wait(9);
    world.leaves.left(world.now, &anna());
    assert_eq!(world.expect(3600, Deed::Send, Outcome::Gone), Kept::Ended);
}

#[test]
fn mx_36_who_never_comes_goes_after_an_hour_at_most() {
    let mut world = World::new(false);
    world.entrust_for(10 * HOUR, "2", false);
    assert_eq!(world.expect(3600, Deed::Send, Outcome::Done), Kept::Ended);
}

#[test]
fn a_leave_that_the_homeserver_does_not_know_is_over() {
    let mut world = World::new(true);
    assert_eq!(world.expect(0, Deed::Restart, Outcome::Gone), Kept::Ended);
    assert!(!world.leaves.has(&anna()));
}

#[test]
fn failures_are_waited_out_as_told_until_it_is_too_late() {
    let mut world = World::new(true);
    let told = Duration::from_secs(7);
    assert_eq!(
        world.expect(0, Deed::Restart, Outcome::Later(Some(told))),
        Kept::Same
    );
    assert_eq!(
        world.expect(7, Deed::Restart, Outcome::Done),
        Kept::Restarted
    );
    world.leaves.left(world.now, &anna());
    let mut attempts = 0;
    while world.leaves.wake().is_some() {
        world.now = world.now.max(world.leaves.wake().unwrap());
        let Some(due) = world.leaves.due(world.now, &mut world.ended) else {
            break;
        };
        assert_eq!(due.deed, Deed::Send);
        attempts += 1;
        assert_eq!(
            world.leaves.done(world.now, &due, Outcome::Later(None)),
            Kept::Same
        );
        world.now += Duration::from_nanos(1);
    }
    assert_eq!(world.ended, [anna()]);
    assert!((60..80).contains(&attempts), "{attempts}");
    assert!(world.now - world.start <= HOUR + Duration::from_secs(8));
}

#[test]
fn a_new_leave_replaces_the_old_one_also_while_that_is_dealt_with() {
    let mut world = World::new(true);
    let (_, old) = world.next();
    world.entrust("2", true);
    assert_eq!(
        world.leaves.done(world.now, &old, Outcome::Gone),
        Kept::Same
    );
    let (_, new) = world.next();
    assert_eq!(new.leave.id, "2");
    assert_eq!(
        world.leaves.done(world.now, &new, Outcome::Done),
        Kept::Restarted
    );
}

#[test]
fn who_goes_while_a_restart_is_under_way_is_let_go_after_it() {
    let mut world = World::new(true);
    let (_, restart) = world.next();
    world.leaves.left(world.now, &anna());
    assert!(world.leaves.wake().is_none(), "one thing at a time");
    world.leaves.done(world.now, &restart, Outcome::Done);
    assert_eq!(world.expect(0, Deed::Send, Outcome::Done), Kept::Ended);
}

#[test]
fn who_comes_back_before_it_is_sent_stays() {
    let mut world = World::new(true);
    world.expect(0, Deed::Restart, Outcome::Done);
    world.leaves.left(world.now, &anna());
    world.leaves.joined(world.now, &anna());
    assert_eq!(
        world.expect(0, Deed::Restart, Outcome::Done),
        Kept::Restarted
    );
}

#[test]
fn after_a_restart_there_is_a_minute_to_come_back() {
    for (left, wanted) in [(1800, 60), (20, 20)] {
        let mut world = World::new(false);
        let leave = world.leaves.by_key[&anna()].leave.clone();
        let left = Duration::from_secs(left);
        world.leaves.resume(world.now, anna(), leave, left);
        world.expect(wanted, Deed::Send, Outcome::Done);
    }
}

#[test]
fn their_number_is_bounded() {
    let mut world = World::new(false);
    let leave = world.leaves.by_key[&anna()].leave.clone();
    for number in 1..LEAVES_MAX {
        let key = ("red".into(), number.to_string().into());
        assert!(world.leaves.entrust(world.now, key, leave.clone(), false));
    }
    let key = ("blue".into(), "ben".into());
    assert!(!world.leaves.entrust(world.now, key, leave.clone(), false));
    assert!(world.leaves.entrust(world.now, anna(), leave, false));
}
