//! Model checking of the revocation protocol (`docs/reference/revocation-protocol.md`).
//!
//! The model checker explores every interleaving of the protocol's steps. The guarantee is an
//! invariant. Each mutant lacks one part of the protocol, and the checker finds a path that
//! violates the invariant. The test prints that path.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a failed assumption fails the test, and the output shows the number of states and each counterexample"
)]

mod properties;
mod protocol;
mod state;

use stateright::{Checker, HasDiscoveries, Model};

use properties::SAFETY_PROPERTY;
use protocol::{Mutant, Protocol};
use state::Step;

/// Two replicas and one revocation: small enough for readable counterexamples.
const SMALL_PROTOCOL: Protocol = Protocol {
    replicas: 2,
    revocations: 1,
    lease: 2,
    introspections: false,
    has_stray_renewals: false,
    has_barriers: false,
    has_reaping: false,
    has_log_rollback: false,
    is_coarse: false,
    is_symmetric: false,
    mutant: None,
};

/// Explores all states. Asserts that the invariant holds and that the states which could violate it
/// are reachable.
fn assert_holds(name: &str, protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, longest path {} steps", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn introspections_of_any_length_are_safe() {
    assert_holds(
        "two replicas, introspections",
        Protocol { introspections: true, lease: 1, is_coarse: true, is_symmetric: true, ..SMALL_PROTOCOL },
    );
}

#[test]
fn late_renewals_are_safe() {
    assert_holds(
        "two replicas, stray renewals",
        Protocol { has_stray_renewals: true, is_symmetric: true, lease: 1, ..SMALL_PROTOCOL },
    );
}

#[test]
fn two_replicas_with_longer_leases_are_safe() {
    assert_holds("two replicas, longer leases", Protocol { is_symmetric: true, ..SMALL_PROTOCOL });
}

#[test]
fn overlapping_revocations_are_safe() {
    assert_holds(
        "two replicas, two revocations",
        Protocol { revocations: 2, lease: 1, is_coarse: true, is_symmetric: true, ..SMALL_PROTOCOL },
    );
}

#[test]
fn three_replicas_are_safe() {
    assert_holds(
        "three replicas",
        Protocol { replicas: 3, lease: 1, is_coarse: true, is_symmetric: true, ..SMALL_PROTOCOL },
    );
}

/// A second client requests the same revocation and finds it in the log. The response "already
/// revoked" waits until the revocation holds on every replica.
#[test]
fn repeated_revocation_is_safe() {
    assert_holds(
        "two replicas, two requests for the same revocation",
        Protocol { has_barriers: true, lease: 1, is_coarse: true, is_symmetric: true, ..SMALL_PROTOCOL },
    );
}

#[test]
fn reaping_dead_replicas_is_safe() {
    assert_holds(
        "two replicas, rows removed",
        Protocol { has_reaping: true, is_symmetric: true, lease: 1, ..SMALL_PROTOCOL },
    );
}

/// The guarantee does not cover lost entries. It covers every revocation that is acknowledged after
/// the rollback, once all earlier leases have expired.
#[test]
fn log_rollback_is_safe() {
    assert_holds(
        "two replicas, log rollback",
        Protocol {
            has_log_rollback: true,
            revocations: 2,
            lease: 1,
            is_coarse: true,
            is_symmetric: true,
            ..SMALL_PROTOCOL
        },
    );
}

/// Returns the steps of a path to a violation of the invariant, up to the violation.
fn find_counterexample(mutant: Mutant) -> Vec<Step> {
    let protocol = Protocol { mutant: Some(mutant), ..SMALL_PROTOCOL };
    // A lease of one tick is sufficient for the larger variants and reduces the number of states.
    let protocol = match mutant {
        Mutant::MemoryReadBeforeLease => Protocol { introspections: true, lease: 1, ..protocol },
        Mutant::AcknowledgedImmediately => Protocol { has_barriers: true, lease: 1, ..protocol },
        Mutant::ReapedTooEarly | Mutant::ReapedUnconditionally => Protocol { has_reaping: true, lease: 1, ..protocol },
        Mutant::LogNeverCompared
        | Mutant::ComparedBeforeExclusive
        | Mutant::LeaseForOtherLog
        | Mutant::TrustedImmediately => {
            Protocol { has_log_rollback: true, revocations: 2, lease: 1, is_coarse: true, ..protocol }
        }
        Mutant::NoLease
        | Mutant::HeadReadDuringRenewal
        | Mutant::HeadReadOnlyAfterLapse
        | Mutant::RowsReadBeforeEntry
        | Mutant::LeaseCountedFromResponse
        | Mutant::SlowClock => protocol,
    };
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let Some(path) = checker.discovery(SAFETY_PROPERTY) else {
        let states = checker.unique_state_count();
        panic!("{mutant:?}: the invariant holds in all {states} states; the model does not detect this mutant");
    };
    let invariant = protocol.property(SAFETY_PROPERTY).condition;
    let until_violated = path.into_vec().into_iter().take_while(|(state, _)| invariant(&protocol, state));
    let steps = until_violated.filter_map(|(_, step)| step).collect::<Vec<_>>();
    println!("{mutant:?}:");
    for (n, step) in steps.iter().enumerate() {
        println!("{:4}. {step}", n + 1);
    }
    steps
}

#[test]
fn missing_lease_breaks_safety() {
    let steps = find_counterexample(Mutant::NoLease);
    assert!(matches!(steps.last(), Some(Step::Acknowledge(..))), "{steps:?}");
}

#[test]
fn head_read_during_renewal_breaks_safety() {
    let steps = find_counterexample(Mutant::HeadReadDuringRenewal);
    // The race: the renewal executes, then the revoker commits and reads the rows. The row of the
    // renewal is committed only then, so the revoker does not see it.
    let at = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
    let executed = at(|step| matches!(step, Step::ExecuteRenewal(_)));
    let revoked = at(|step| matches!(step, Step::Revoke(_)));
    let read_rows = at(|step| matches!(step, Step::ReadRows(..)));
    let committed = at(|step| matches!(step, Step::CommitRenewal(_)));
    assert!(executed < revoked && revoked < read_rows && read_rows < committed, "{steps:?}");
}

#[test]
fn every_other_mutant_breaks_safety() {
    for mutant in [
        Mutant::HeadReadOnlyAfterLapse,
        Mutant::RowsReadBeforeEntry,
        Mutant::LeaseCountedFromResponse,
        Mutant::SlowClock,
        Mutant::MemoryReadBeforeLease,
    ] {
        let steps = find_counterexample(mutant);
        assert!(steps.iter().any(|step| matches!(step, Step::Acknowledge(..))), "{steps:?}");
    }
}

#[test]
fn immediate_acknowledgement_breaks_safety() {
    let steps = find_counterexample(Mutant::AcknowledgedImmediately);
    assert!(steps.iter().any(|step| matches!(step, Step::ReportAlready(..))), "{steps:?}");
}

#[test]
fn early_reaping_breaks_safety() {
    for mutant in [Mutant::ReapedTooEarly, Mutant::ReapedUnconditionally] {
        let steps = find_counterexample(mutant);
        assert!(steps.iter().any(|step| matches!(step, Step::Remove(..))), "{steps:?}");
    }
}

#[test]
fn unchecked_log_rollback_breaks_safety() {
    for mutant in [
        Mutant::LogNeverCompared,
        Mutant::ComparedBeforeExclusive,
        Mutant::LeaseForOtherLog,
        Mutant::TrustedImmediately,
    ] {
        let steps = find_counterexample(mutant);
        let at = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
        let rolled_back = at(|step| matches!(step, Step::RollBackLog));
        let acknowledged = at(|step| matches!(step, Step::Acknowledge(_, 2)));
        assert!(rolled_back < acknowledged, "{steps:?}");
    }
}
