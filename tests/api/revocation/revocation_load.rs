//! Introspection during many concurrent revocations.

use errand::{
    domain::{
        audit::WriterId,
        id::TokenId,
        revocation::{LogAction, LogPosition, NewEntry, Target},
        time::Timestamp,
    },
    ports::{Store, WriteOutcome, WriteSet},
};
use uuid::Uuid;

use crate::server::{Server, decode_claims, wait_until};

on_both_stores!(revocation_burst_is_applied_in_chunks);

/// Writes revocations in one commit, as another replica does. Returns the last position.
async fn revoke(store: &dyn Store, tokens: &[TokenId]) -> LogPosition {
    let at = Timestamp::from_unix(Server::now());
    let entry = |token: &TokenId| NewEntry {
        verb: LogAction::Revoke,
        target: Target::Token(*token),
        reason: "in a test".into(),
        by: "admin:ops".into(),
        at,
        forget_after: Timestamp::from_unix(at.unix() + 900),
    };
    let write = WriteSet { log_entries: tokens.iter().map(entry).collect(), ..WriteSet::default() };
    match &store.commit(WriterId(Uuid::new_v4()), &[write]).await.unwrap()[..] {
        [WriteOutcome::Committed { seq: Some(seq) }] => *seq,
        other => panic!("{other:?}"),
    }
}

/// Counts around the sizes of pages and chunks: a replica reports a position only when it applied
/// everything up to it.
async fn revocation_burst_is_applied_in_chunks(server: Server) {
    let store = server.open_store().await;
    let untouched = server.task_token().await;
    server.wait_until_leased().await;
    for size in [1, 2, 255, 256, 257, 499, 500, 501, 1000, 1001, 2600] {
        let mut tokens = Vec::new();
        for place in [0, size / 2, size - 1] {
            tokens.push((place, server.task_token().await));
        }
        let mut burst = (0..size).map(|_| TokenId::new(Uuid::new_v4())).collect::<Vec<_>>();
        for (place, token) in &tokens {
            burst[*place] = decode_claims(token)["jti"].as_str().unwrap().parse().unwrap();
        }
        // If two entries have the same target, the last one counts.
        tokens.retain(|(place, token)| burst[*place].to_string() == decode_claims(token)["jti"]);
        let before = server.application.service.applied_seq();
        let last = revoke(&*store, &burst).await;
        assert_eq!(last.number(), before.number() + size as u64);
        wait_until("all of it is applied", async || {
            let applied = server.application.service.applied_seq();
            for (place, token) in &tokens {
                let is_applied = applied.number() > before.number() + *place as u64;
                assert!(
                    !is_applied || !server.is_active(token).await,
                    "{place} of {size}, at {applied:?} from {before:?}"
                );
            }
            applied >= last
        })
        .await;
        assert_eq!(server.application.service.applied_seq(), last);
        for (place, token) in &tokens {
            assert!(!server.is_active(token).await, "{place} of {size}");
        }
        assert!(server.is_active(&untouched).await);
    }
    server.stop().await;
}
