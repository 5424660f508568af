//! A fault that a test arms: the core panics at a marked point, for one identity, once.

use std::cell::RefCell;

use crate::ids::Identity;

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Between taking a datagram in and looking at what it led to.
    Datagram,
    /// While the participant is taken out.
    Leave,
    /// While something is written for the participant.
    Forward,
}

thread_local! {
    static ARMED: RefCell<Vec<(Point, Identity)>> = const { RefCell::new(Vec::new()) };
}

/// The next time `identity` passes `point` on this thread, there is a panic.
pub fn arm(point: Point, identity: &str) {
    ARMED.with_borrow_mut(|armed| armed.push((point, identity.into())));
}

/// A marked point in the core.
pub fn trip(point: Point, identity: &Identity) {
    let struck = ARMED.with_borrow_mut(|armed| {
        let at = armed
            .iter()
            .position(|it| (it.0, &it.1) == (point, identity));
        at.map(|at| armed.remove(at))
    });
    assert_eq!(struck, None, "a fault, as ordered");
}
