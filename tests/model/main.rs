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
mod world;

use stateright::{Checker, HasDiscoveries, Model};

use properties::PROMISE;
use protocol::{Broken, Protocol};
use world::Step;

/// Small enough to be told in a path: two replicas, one revocation.
const SMALL: Protocol = Protocol {
    replicas: 2,
    revocations: 1,
    lease: 2,
    introspections: false,
    strays: false,
    settles: false,
    removes: false,
    goes_back: false,
    coarse: false,
    nameless: false,
    broken: None,
};

/// Explores everything, and sees that the promise holds and that there was something to break it.
fn holds(name: &str, protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, the longest way {} steps", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn introspections_of_any_length() {
    holds(
        "two replicas, introspections",
        Protocol { introspections: true, lease: 1, coarse: true, nameless: true, ..SMALL },
    );
}

#[test]
fn renewals_that_come_after_they_were_given_up() {
    holds("two replicas, stray renewals", Protocol { strays: true, nameless: true, lease: 1, ..SMALL });
}

#[test]
fn two_replicas_and_leases_of_some_length() {
    holds("two replicas, longer leases", Protocol { nameless: true, ..SMALL });
}

#[test]
fn two_revocations_that_overlap() {
    holds(
        "two replicas, two revocations",
        Protocol { revocations: 2, lease: 1, coarse: true, nameless: true, ..SMALL },
    );
}

#[test]
fn three_replicas() {
    holds("three replicas", Protocol { replicas: 3, lease: 1, coarse: true, nameless: true, ..SMALL });
}

/// Somebody else wants the same, finds it in the log, and is told that it is so already: when it is so everywhere.
#[test]
fn it_is_so_already() {
    holds(
        "two replicas, two who want the same",
        Protocol { settles: true, lease: 1, coarse: true, nameless: true, ..SMALL },
    );
}

#[test]
fn rows_of_the_dead_are_removed() {
    holds("two replicas, rows removed", Protocol { removes: true, nameless: true, lease: 1, ..SMALL });
}

/// What was lost is lost. What is acknowledged afterwards holds everywhere, when the leases of before are over.
#[test]
fn a_log_that_went_back() {
    holds(
        "two replicas, a log that went back",
        Protocol { goes_back: true, revocations: 2, lease: 1, coarse: true, nameless: true, ..SMALL },
    );
}

/// A way on which the promise breaks, as far as it breaks.
fn breaks(broken: Broken) -> Vec<Step> {
    let protocol = Protocol { broken: Some(broken), ..SMALL };
    // Where there is more to be explored, a lease of one tick is enough, and there are fewer states.
    let protocol = match broken {
        Broken::MemoryReadBeforeTheLease => Protocol { introspections: true, lease: 1, ..protocol },
        Broken::SaidAtOnce => Protocol { settles: true, lease: 1, ..protocol },
        Broken::RemovedTooEarly | Broken::RemovedWhateverCame => Protocol { removes: true, lease: 1, ..protocol },
        Broken::NeverCompared | Broken::ComparedBeforeAlone | Broken::LeaseForAnotherLog | Broken::ReliedOnAtOnce => {
            Protocol { goes_back: true, revocations: 2, lease: 1, coarse: true, ..protocol }
        }
        Broken::NoLease
        | Broken::HeadReadInTheRenewal
        | Broken::HeadReadOnlyAfterALapse
        | Broken::RowsReadBeforeTheEntry
        | Broken::CountedFromTheAnswer
        | Broken::ClockTooSlow => protocol,
    };
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let Some(path) = checker.discovery(PROMISE) else {
        let states = checker.unique_state_count();
        panic!("{broken:?}: {states} states, and the promise held: the model does not see what it is for");
    };
    let promise = protocol.property(PROMISE).condition;
    let until_broken = path.into_vec().into_iter().take_while(|(world, _)| promise(&protocol, world));
    let steps = until_broken.filter_map(|(_, step)| step).collect::<Vec<_>>();
    println!("{broken:?}:");
    for (n, step) in steps.iter().enumerate() {
        println!("{:4}. {step}", n + 1);
    }
    steps
}

#[test]
fn without_the_lease_it_breaks() {
    let steps = breaks(Broken::NoLease);
    assert!(matches!(steps.last(), Some(Step::Acknowledge(..))), "{steps:?}");
}

#[test]
fn with_the_head_read_in_the_renewal_it_breaks() {
    let steps = breaks(Broken::HeadReadInTheRenewal);
    // The race: carried out, then the revocation, which sees no such row; and only then committed.
    let at = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
    let carried_out = at(|step| matches!(step, Step::CarryRenewalOut(_)));
    let revoked = at(|step| matches!(step, Step::Revoke(_)));
    let looked = at(|step| matches!(step, Step::LookAtRows(..)));
    let committed = at(|step| matches!(step, Step::CommitRenewal(_)));
    assert!(carried_out < revoked && revoked < looked && looked < committed, "{steps:?}");
}

#[test]
fn each_other_part_is_needed_as_well() {
    for broken in [
        Broken::HeadReadOnlyAfterALapse,
        Broken::RowsReadBeforeTheEntry,
        Broken::CountedFromTheAnswer,
        Broken::ClockTooSlow,
        Broken::MemoryReadBeforeTheLease,
    ] {
        let steps = breaks(broken);
        assert!(steps.iter().any(|step| matches!(step, Step::Acknowledge(..))), "{steps:?}");
    }
}

#[test]
fn said_at_once_it_breaks() {
    let steps = breaks(Broken::SaidAtOnce);
    assert!(steps.iter().any(|step| matches!(step, Step::SayAlready(..))), "{steps:?}");
}

#[test]
fn with_rows_removed_too_early_it_breaks() {
    for broken in [Broken::RemovedTooEarly, Broken::RemovedWhateverCame] {
        let steps = breaks(broken);
        assert!(steps.iter().any(|step| matches!(step, Step::Remove(..))), "{steps:?}");
    }
}

#[test]
fn without_comparing_a_log_that_went_back_breaks_it() {
    for broken in
        [Broken::NeverCompared, Broken::ComparedBeforeAlone, Broken::LeaseForAnotherLog, Broken::ReliedOnAtOnce]
    {
        let steps = breaks(broken);
        let at = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
        let went_back = at(|step| matches!(step, Step::GoBack));
        let acknowledged = at(|step| matches!(step, Step::Acknowledge(_, 2)));
        assert!(went_back < acknowledged, "{steps:?}");
    }
}
