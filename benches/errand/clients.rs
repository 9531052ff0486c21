//! Measurements with several servers or kinds of load: a burst of revocations, three replicas, and
//! commits without grouping.

use std::{fs, path::Path, time::Duration};

use errand::{
    adapters::store::{StoreOptions, connect},
    domain::{
        audit::WriterId,
        id::TokenId,
        revocation::{LogAction, NewEntry, Target},
        time::Timestamp,
    },
    ports::{Store, WriteSet},
};
use uuid::Uuid;

use crate::{
    Plan,
    fixtures::{Fixtures, UserTokens, access_token_of},
    load::{self, Outcome},
    process::free_address,
    report::{Report, SingleCommits, Singles, median},
    rounds::{Bench, start},
    support::TestStore,
};

const BURST_REVOCATIONS: usize = 100_000;

impl Bench {
    /// Sixteen clients introspect, first alone and then while a hundred thousand tokens are
    /// revoked.
    pub async fn burst(&self, known: &[String], store: &TestStore, report: &mut Report) {
        let introspections = self.fixtures.introspections(known, false);
        let (address, time) = (self.fixtures.address, 2 * self.plan.duration);
        let undisturbed = load::run(address, &introspections, 16, time, false).await;
        // On a separate thread, so that the clients do not wait for this program.
        let url = store.url().to_owned();
        let revoker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = connect(&url, &StoreOptions::default()).await.unwrap();
                revoke_many(&*store, time / 4).await;
            });
        });
        let during_revocations = load::run(address, &introspections, 16, time, false).await;
        revoker.join().unwrap();
        self.report_outcome("introspection, 16 clients, without revocations", &undisturbed, report);
        self.report_outcome("introspection, 16 clients, with 100,000 revocations", &during_revocations, report);
    }

    /// Latency of a revocation with three replicas, and after one of them was killed.
    pub async fn replicas(&self, folder: &Path, report: &mut Report) {
        let mut others = Vec::new();
        for n in 0..2 {
            let address = free_address();
            let config = folder.join(format!("replica-{n}.toml"));
            let text = fs::read_to_string(folder.join("errand.toml")).unwrap();
            let listen = |address| format!("listen = \"{address}\"");
            fs::write(&config, text.replace(&listen(self.fixtures.address), &listen(address))).unwrap();
            others.push(start(&config, address, &folder.join(format!("replica-{n}.log"))).await);
        }
        let (count, few, pause) = (self.plan.singles, self.plan.singles.min(20), Duration::from_millis(5));
        let requests = self.fixtures.exchanges(UserTokens::Es256, count + few + 64);
        let issued = load::run(self.fixtures.address, &requests, 16, Duration::from_mins(1), true).await;
        let tokens = issued.bodies.iter().map(|body| access_token_of(body)).collect::<Vec<_>>();
        let grant = load::send_once(self.fixtures.address, &self.fixtures.api_token(), r#"{"access_token":""#).await;
        let revocations = |tokens: &[String]| self.fixtures.revocations(tokens, &access_token_of(&grant));
        let three = load::run_paced(self.fixtures.address, &revocations(&tokens[..count]), pause).await;
        self.report_outcome("revocation, three replicas", &three, report);
        drop(others.pop());
        // The first revocation waits for the lease of the killed replica; later ones do not.
        let (first, rest) = tokens[count..=count + few].split_at(1);
        let first = load::run_paced(self.fixtures.address, &revocations(first), pause).await;
        self.report_outcome("revocation, one of three replicas just killed", &first, report);
        let rest = load::run_paced(self.fixtures.address, &revocations(rest), pause).await;
        self.report_outcome("revocation, after that replica's lease lapsed", &rest, report);
    }

    fn report_outcome(&self, what: &'static str, outcome: &Outcome, report: &mut Report) {
        let [p50_us, p99_us, max_us] = [50, 99, 100].map(|percent| outcome.percentile(percent));
        report.singles.push(Singles { store: self.name, what, count: outcome.latencies.len(), p50_us, p99_us, max_us });
    }
}

/// Appends log entries, many per commit, as another replica would.
async fn revoke_many(store: &dyn Store, after: Duration) {
    let at = Timestamp::from_unix(time::OffsetDateTime::now_utc().unix_timestamp());
    let entry = || NewEntry {
        verb: LogAction::Revoke,
        target: Target::Token(TokenId::new(Uuid::new_v4())),
        reason: "benchmark".into(),
        by: "admin:bench".into(),
        at,
        forget_after: Timestamp::from_unix(at.unix() + 900),
    };
    tokio::time::sleep(after).await;
    let writer = WriterId(Uuid::new_v4());
    for _ in 0..BURST_REVOCATIONS / 1000 {
        let write = WriteSet { log_entries: (0..1000).map(|_| entry()).collect(), ..WriteSet::default() };
        store.commit(writer, &[write]).await.unwrap();
    }
}

/// Measures the same exchanges with one commit each, on a separate store.
pub async fn measure_single_commits(name: &'static str, store: TestStore, plan: Plan, report: &mut Report) {
    let Some(&clients) = plan.clients.last() else { return };
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Fixtures::new(free_address());
    fixtures.configure(folder.path(), store.url());
    let config = folder.path().join("errand.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[store]\n", "[store]\nmax_batch = 1\n")).unwrap();
    let _server = start(&config, fixtures.address, &folder.path().join("errand.log")).await;
    let mut rates = Vec::new();
    for _ in 0..plan.repetitions {
        let count = (3_000.0 * plan.duration.as_secs_f64()) as usize;
        let requests = fixtures.exchanges(UserTokens::Rs256, count);
        rates.push(load::run(fixtures.address, &requests, clients, plan.duration, false).await.per_second());
    }
    let per_second = median(rates);
    let is_same =
        |row: &&crate::report::Row| row.store == name && row.what == "exchange, RS256" && row.clients == clients;
    let gain = report.rows.iter().find(is_same).map_or(0.0, |row| row.per_second / per_second);
    report.alone.push(SingleCommits { store: name, clients, per_second, gain });
}
