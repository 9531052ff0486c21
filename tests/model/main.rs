//! The revocation protocol (`docs/reference/revocation-protocol.md`), explored in every order in which its steps can happen. The promise is an
//! invariant; with any one part of the protocol taken out, there is a path on which it breaks, and the test prints it.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test: to stop is how it says no; and what was explored, and how each broken variant breaks, is for a reader"
)]

mod properties;
mod protocol;
mod state;

use stateright::{Checker, HasDiscoveries, Model};

use properties::SAFETY_PROPERTY;
use protocol::{Mutant, Protocol};
use state::Step;

/// Small enough to be told in a path: two replicas, one revocation.
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
    is_nameless: false,
    mutant: None,
};

/// Explores everything, and sees that the promise holds and that there was something to break it.
fn assert_holds(name: &str, protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, the longest way {} steps", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn introspections_of_any_length_are_safe() {
    assert_holds(
        "two replicas, introspections",
        Protocol { introspections: true, lease: 1, is_coarse: true, is_nameless: true, ..SMALL_PROTOCOL },
    );
}

#[test]
fn late_renewals_are_safe() {
    assert_holds(
        "two replicas, stray renewals",
        Protocol { has_stray_renewals: true, is_nameless: true, lease: 1, ..SMALL_PROTOCOL },
    );
}

#[test]
fn two_replicas_with_longer_leases_are_safe() {
    assert_holds("two replicas, longer leases", Protocol { is_nameless: true, ..SMALL_PROTOCOL });
}

#[test]
fn overlapping_revocations_are_safe() {
    assert_holds(
        "two replicas, two revocations",
        Protocol { revocations: 2, lease: 1, is_coarse: true, is_nameless: true, ..SMALL_PROTOCOL },
    );
}

#[test]
fn three_replicas_are_safe() {
    assert_holds(
        "three replicas",
        Protocol { replicas: 3, lease: 1, is_coarse: true, is_nameless: true, ..SMALL_PROTOCOL },
    );
}

/// Somebody else wants the same, finds it in the log, and is told that it is so already: when it is so everywhere.
#[test]
fn repeated_revocation_is_safe() {
    assert_holds(
        "two replicas, two who want the same",
        Protocol { has_barriers: true, lease: 1, is_coarse: true, is_nameless: true, ..SMALL_PROTOCOL },
    );
}

#[test]
fn reaping_dead_replicas_is_safe() {
    assert_holds(
        "two replicas, rows removed",
        Protocol { has_reaping: true, is_nameless: true, lease: 1, ..SMALL_PROTOCOL },
    );
}

/// What was lost is lost. What is acknowledged afterwards holds everywhere, when the leases of before are over.
#[test]
fn log_rollback_is_safe() {
    assert_holds(
        "two replicas, a log that went back",
        Protocol {
            has_log_rollback: true,
            revocations: 2,
            lease: 1,
            is_coarse: true,
            is_nameless: true,
            ..SMALL_PROTOCOL
        },
    );
}

/// A way on which the promise breaks, as far as it breaks.
fn find_counterexample(broken: Mutant) -> Vec<Step> {
    let protocol = Protocol { mutant: Some(broken), ..SMALL_PROTOCOL };
    // Where there is more to be explored, a lease of one tick is enough, and there are fewer states.
    let protocol = match broken {
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
        panic!("{broken:?}: {states} states, and the promise held: the model does not see what it is for");
    };
    let promise = protocol.property(SAFETY_PROPERTY).condition;
    let until_broken = path.into_vec().into_iter().take_while(|(world, _)| promise(&protocol, world));
    let steps = until_broken.filter_map(|(_, step)| step).collect::<Vec<_>>();
    println!("{broken:?}:");
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
    // The race: carried out, then the revocation, which sees no such row; and only then committed.
    let at = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
    let carried_out = at(|step| matches!(step, Step::ExecuteRenewal(_)));
    let revoked = at(|step| matches!(step, Step::Revoke(_)));
    let looked = at(|step| matches!(step, Step::ReadRows(..)));
    let committed = at(|step| matches!(step, Step::CommitRenewal(_)));
    assert!(carried_out < revoked && revoked < looked && looked < committed, "{steps:?}");
}

#[test]
fn every_other_mutant_breaks_safety() {
    for broken in [
        Mutant::HeadReadOnlyAfterLapse,
        Mutant::RowsReadBeforeEntry,
        Mutant::LeaseCountedFromResponse,
        Mutant::SlowClock,
        Mutant::MemoryReadBeforeLease,
    ] {
        let steps = find_counterexample(broken);
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
    for broken in [Mutant::ReapedTooEarly, Mutant::ReapedUnconditionally] {
        let steps = find_counterexample(broken);
        assert!(steps.iter().any(|step| matches!(step, Step::Remove(..))), "{steps:?}");
    }
}

#[test]
fn unchecked_log_rollback_breaks_safety() {
    for broken in [
        Mutant::LogNeverCompared,
        Mutant::ComparedBeforeExclusive,
        Mutant::LeaseForOtherLog,
        Mutant::TrustedImmediately,
    ] {
        let steps = find_counterexample(broken);
        let at = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
        let went_back = at(|step| matches!(step, Step::RollBackLog));
        let acknowledged = at(|step| matches!(step, Step::Acknowledge(_, 2)));
        assert!(went_back < acknowledged, "{steps:?}");
    }
}
