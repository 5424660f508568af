//! Faults on demand: what the test suites of clients ask for by `simulate`. Heeded only where
//! `http.simulate` is set, which no server for people does.

use std::time::Duration;

use livekit_protocol as proto;
use proto::simulate_scenario::Scenario;

use super::request::Action;
use crate::media::message::{BreakOff, Departure, LeaveAction, LeaveReason, Request, Simulation};
use crate::units::Bitrate;

/// Longest simulated speech.
const SPEECH_MAX: Duration = Duration::from_secs(600);

/// What to do about a scenario.
pub(super) fn act(asked: proto::SimulateScenario) -> Action {
    let simulate = |what| Action::Ask(Request::Simulate(what));
    match asked.scenario {
        Some(Scenario::SpeakerUpdate(seconds)) => {
            let span = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            simulate(Simulation::Speech(span.min(SPEECH_MAX)))
        }
        // The connection ends without a word, and nobody knows the stay any more: as if the node
        // were gone, or had handed over to one that isn't there.
        Some(Scenario::NodeFailure(_) | Scenario::Migration(_)) => Action::Ask(Request::Leave),
        Some(Scenario::ServerLeave(_)) => Action::Depart(Departure {
            reason: LeaveReason::ServerShutdown,
            action: LeaveAction::Disconnect,
        }),
        Some(Scenario::LeaveRequestFullReconnect(_)) => Action::Depart(Departure {
            reason: LeaveReason::StateMismatch,
            action: LeaveAction::Reconnect,
        }),
        Some(Scenario::SubscriberBandwidth(bps)) => {
            let limit = u64::try_from(bps).ok().filter(|bps| *bps > 0);
            simulate(Simulation::Bandwidth(limit.map(Bitrate::bps)))
        }
        Some(Scenario::DisconnectSignalOnResume(_)) => {
            simulate(Simulation::BreakOff(BreakOff::Told))
        }
        Some(Scenario::DisconnectSignalOnResumeNoMessages(_)) => {
            simulate(Simulation::BreakOff(BreakOff::Silent))
        }
        // There is no other protocol than UDP to switch to.
        Some(Scenario::SwitchCandidateProtocol(_)) | None => {
            tracing::debug!(?asked, "not simulated");
            Action::Ignore
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulation(scenario: Scenario) -> Option<Simulation> {
        let scenario = Some(scenario);
        match act(proto::SimulateScenario { scenario }) {
            Action::Ask(Request::Simulate(what)) => Some(what),
            _ => None,
        }
    }

    #[test]
    fn numbers_are_bounded_and_a_rate_of_nothing_is_no_limit() {
        let speech = |seconds| simulation(Scenario::SpeakerUpdate(seconds));
        let span = |seconds| Some(Simulation::Speech(Duration::from_secs(seconds)));
        assert_eq!(speech(3), span(3));
        assert_eq!(speech(-3), span(0));
        assert_eq!(speech(i32::MAX), Some(Simulation::Speech(SPEECH_MAX)));
        let limit = |bps| simulation(Scenario::SubscriberBandwidth(bps));
        let kbps = Simulation::Bandwidth(Some(Bitrate::kbps(90)));
        assert_eq!(limit(90_000), Some(kbps));
        for none in [0, -1] {
            assert_eq!(limit(none), Some(Simulation::Bandwidth(None)));
        }
    }

    #[test]
    fn what_cannot_be_is_ignored() {
        let tcp = proto::CandidateProtocol::Tcp as i32;
        for scenario in [None, Some(Scenario::SwitchCandidateProtocol(tcp))] {
            let action = act(proto::SimulateScenario { scenario });
            assert!(matches!(action, Action::Ignore));
        }
    }
}
