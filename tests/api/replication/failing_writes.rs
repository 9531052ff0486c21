//! Writes fail while reads succeed: readiness says so, no answer is a guess, and the next write
//! after the failure succeeds without a restart.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    machine::{SmallDisk, report_not_run},
    server::{Server, decode_claims, wait_until},
    support::TestStore,
};

async fn readiness(server: &Server) -> (u16, String) {
    let response = server.request(Method::GET, "/readyz").send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Requests tokens until the store refuses one.
async fn exchange_until_refused(server: &Server) {
    for _ in 0..20_000 {
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
        if status != 200 {
            assert_eq!((status.as_u16(), &body["error"]), (503, &json!("temporarily_unavailable")), "{body}");
            return;
        }
    }
    panic!("no write fails");
}

async fn assert_readiness_follows_writes(server: Server, fail: impl AsyncFn(&Server), heal: impl AsyncFn(&Server)) {
    let token = server.task_token().await;
    for _ in 0..2 {
        wait_until("the replica is ready", || async { readiness(&server).await.0 == 200 }).await;
        fail(&server).await;
        exchange_until_refused(&server).await;
        let (status, body) = readiness(&server).await;
        assert_eq!(status, 503, "{body}");
        let problem = serde_json::from_str::<Value>(&body).unwrap();
        assert_eq!(problem["detail"], "failed check: store; retry later", "{body}");
        // The readiness stays as it is while nothing is written but the probe.
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        assert_eq!(readiness(&server).await.0, 503);
        heal(&server).await;
        // No request writes: the replica finds out alone.
        wait_until("the replica is ready again", || async { readiness(&server).await.0 == 200 }).await;
        let fresh = server.task_token().await;
        assert!(server.is_active(&fresh).await && server.is_active(&token).await);
        server.revoke(json!({"kind": "token", "id": decode_claims(&fresh)["jti"], "reason": "a test"})).await;
        assert!(!server.is_active(&fresh).await);
    }
    let cx = server.application.system_context().unwrap();
    let report = server.application.service.verify_audit(&[], &cx).await.unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_reports_full_disk_on_sqlite() {
    let Some(disk) = SmallDisk::mount(4096) else {
        let missing = "this user may not mount a small file system; run the tests as root";
        return report_not_run("readiness_reports_full_disk_on_sqlite", missing);
    };
    let server = Server::start(TestStore::sqlite_in(disk.path()).await).await;
    assert_readiness_follows_writes(server, async |_| disk.fill(), async |_| disk.free()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_reports_failing_commits_on_postgres() {
    let server = Server::start(TestStore::postgres().await).await;
    let fail = async |server: &Server| {
        let function = "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'could not write: Input/output error' USING ERRCODE = 'io_error'; END $$";
        server.store.tamper(function).await;
        let at_commit = "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail()";
        server.store.tamper(at_commit).await;
        let probe = "CREATE TRIGGER fail BEFORE UPDATE ON write_probe FOR EACH ROW EXECUTE FUNCTION fail()";
        server.store.tamper(probe).await;
    };
    let heal = async |server: &Server| {
        server.store.tamper("DROP TRIGGER fail ON audit").await;
        server.store.tamper("DROP TRIGGER fail ON write_probe").await;
    };
    assert_readiness_follows_writes(server, fail, heal).await;
}
