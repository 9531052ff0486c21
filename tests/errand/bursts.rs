//! Many revocations at once, and who is asked meanwhile.

use errand::{
    domain::{
        audit::Writer,
        id::TokenId,
        revocation::{NewEntry, Seq, Target, Verb},
        time::Timestamp,
    },
    ports::{Store, Write, Written},
};
use uuid::Uuid;

use crate::server::{Server, claims, until};

on_both_stores!(a_burst_is_applied_part_by_part);

/// As another replica writes them: in one commit. Returns the last place.
async fn revoke(store: &dyn Store, tokens: &[TokenId]) -> Seq {
    let at = Timestamp::from_unix(Server::now());
    let entry = |token: &TokenId| NewEntry {
        verb: Verb::Revoke,
        target: Target::Token(*token),
        reason: "in a test".into(),
        by: "admin:ops".into(),
        at,
        forget_after: Timestamp::from_unix(at.unix() + 900),
    };
    let write = Write { log: tokens.iter().map(entry).collect(), ..Write::default() };
    match &store.commit(Writer(Uuid::new_v4()), &[write]).await.unwrap()[..] {
        [Written::Done { seq: Some(seq) }] => *seq,
        other => panic!("{other:?}"),
    }
}

/// Around the sizes of what is read and applied at a time: a position is one up to which everything is known.
async fn a_burst_is_applied_part_by_part(server: Server) {
    let store = server.store.open().await;
    let untouched = server.task_token().await;
    server.leased().await;
    for size in [1, 2, 255, 256, 257, 499, 500, 501, 1000, 1001, 2600] {
        let mut tokens = Vec::new();
        for place in [0, size / 2, size - 1] {
            tokens.push((place, server.task_token().await));
        }
        let mut burst = (0..size).map(|_| TokenId::new(Uuid::new_v4())).collect::<Vec<_>>();
        for (place, token) in &tokens {
            burst[*place] = claims(token)["jti"].as_str().unwrap().parse().unwrap();
        }
        // Where two fall on one place, the last one is meant.
        tokens.retain(|(place, token)| burst[*place].to_string() == claims(token)["jti"]);
        let before = server.house.service.log_applied();
        let last = revoke(&*store, &burst).await;
        assert_eq!(last.number(), before.number() + size as u64);
        until("all of it is applied", async || {
            let applied = server.house.service.log_applied();
            for (place, token) in &tokens {
                let is_applied = applied.number() > before.number() + *place as u64;
                assert!(
                    !is_applied || !server.is_live(token).await,
                    "{place} of {size}, at {applied:?} from {before:?}"
                );
            }
            applied >= last
        })
        .await;
        assert_eq!(server.house.service.log_applied(), last);
        for (place, token) in &tokens {
            assert!(!server.is_live(token).await, "{place} of {size}");
        }
        assert!(server.is_live(&untouched).await);
    }
    server.stop().await;
}
