//! Status lists: indexes are allocated once, and affected tokens are found.

use std::collections::{BTreeMap, BTreeSet};

use errand::{
    domain::{settings::Retention, status_list::Shard, time::Timestamp},
    ports::{Store, TokenCursor, TokenRecord, TokenSelector, WriteSet},
};
use tokio::task::JoinSet;

use crate::{fixtures::*, support::TestStore};

const REPLICA_COUNT: usize = 3;
const BLOCKS_PER_REPLICA: usize = 20;

fn shard(n: i64) -> Shard {
    Shard::for_expiry(at(NOW.unix() + 300 * n))
}

async fn index_block_is_allocated_once(on: &TestStore) {
    let mut taking = JoinSet::new();
    for replica in 0..REPLICA_COUNT {
        let store = on.open().await;
        taking.spawn(async move {
            let mut taken = Vec::new();
            for n in 0..BLOCKS_PER_REPLICA {
                let shard = shard(i64::try_from((n + replica) % 2).unwrap());
                taken.push((shard.end(), store.allocate_status_block(shard).await.unwrap()));
            }
            taken
        });
    }
    let mut blocks = BTreeMap::<i64, Vec<u64>>::new();
    for (shard, block) in taking.join_all().await.into_iter().flatten() {
        blocks.entry(shard).or_default().push(block);
    }
    let store = on.open().await;
    let half = REPLICA_COUNT * BLOCKS_PER_REPLICA / 2;
    for taken in blocks.values_mut() {
        taken.sort_unstable();
        assert_eq!(*taken, (0..u64::try_from(half).unwrap()).collect::<Vec<_>>(), "each once, without gaps");
    }
    let half = u64::try_from(half).unwrap();
    assert_eq!(store.list_status_shards(NOW).await.unwrap(), [(shard(1), half)]);
    let before = at(NOW.unix() - 1);
    assert_eq!(store.list_status_shards(before).await.unwrap(), [(shard(0), half), (shard(1), half)]);
}

async fn expired_shard_is_removed_after_grace(on: &TestStore) {
    let store = on.open().await;
    for n in [0, 1] {
        assert_eq!(store.allocate_status_block(shard(n)).await.unwrap(), 0);
    }
    let day = 24 * 3600;
    for (now, dropped) in [(day - 1, 0), (day, 1), (day, 0), (day + 300, 1)] {
        assert_eq!(
            store
                .collect_garbage(at(NOW.unix() + now), &Retention::default().cutoffs(at(NOW.unix() + now)))
                .await
                .unwrap()
                .status_shards,
            dropped,
            "{now}"
        );
    }
    assert_eq!(store.list_status_shards(Timestamp::EPOCH).await.unwrap(), []);
}

async fn read_all_tokens(
    store: &dyn Store,
    selector: &TokenSelector,
    alive_at: Timestamp,
    page: u32,
) -> Vec<TokenRecord> {
    let (mut found, mut after) = (Vec::<TokenRecord>::new(), TokenCursor::default());
    loop {
        let tokens = store.list_tokens_with_status(selector, alive_at, after, page).await.unwrap();
        assert!(tokens.len() <= page as usize);
        let Some(last) = tokens.last() else { return found };
        after = last.cursor;
        found.extend(tokens.into_iter().map(|token| token.record.unwrap()));
    }
}

async fn affected_tokens_are_found(on: &TestStore) {
    let store = on.open().await;
    let plain = |n| TokenRecord { task: Some(task_id(n)), grant: None, client: client("reader"), ..token(n) };
    let tokens = [
        TokenRecord { task: Some(task_id(1)), issued: at(NOW.unix() + 2), ..plain(1) },
        // The same task, another client, another resource.
        TokenRecord { task: Some(task_id(1)), client: client("writer"), audience: HOSTILE[0].into(), ..plain(2) },
        TokenRecord { grant: Some(grant_id(9)), ..plain(3) },
        TokenRecord { requester: Some(requester("zoë")), ..plain(4) },
        // The same subject at another issuer.
        TokenRecord {
            requester: Some(errand::domain::task::Requester {
                issuer: "https://other.example.com".parse().unwrap(),
                ..requester("zoë")
            }),
            ..plain(5)
        },
        TokenRecord { client: client("planner"), ..plain(6) },
        // Expired; without a status list index.
        TokenRecord { task: Some(task_id(1)), issued: at(NOW.unix() - 300), expires: NOW, ..plain(7) },
        TokenRecord { task: Some(task_id(1)), status_index: None, ..plain(8) },
    ];
    let writes = tokens.iter().map(|token| WriteSet { token: Some(token.clone()), ..WriteSet::default() });
    commit(&*store, &writes.collect::<Vec<_>>()).await;
    let all = [1, 2, 3, 4, 5, 6];
    let selector = [
        (TokenSelector::Tokens(vec![token_id(2)]), vec![1, 2]),
        (TokenSelector::Tokens(vec![token_id(7), token_id(3), token_id(99)]), vec![1, 2, 3]),
        (TokenSelector::Tasks(vec![task_id(1), task_id(4)]), vec![1, 2, 4]),
        (TokenSelector::Tasks(vec![task_id(99)]), vec![]),
        (TokenSelector::Grants(vec![grant_id(9), grant_id(8)]), vec![3]),
        (TokenSelector::Requesters(vec![("https://login.example.com".into(), "zoë".into())]), vec![4]),
        (TokenSelector::Requesters(vec![("https://login.example.com".into(), HOSTILE[1].into())]), vec![]),
        (TokenSelector::Agents(vec![client("writer"), client("planner")]), vec![1, 2, 6]),
        (TokenSelector::Audiences(vec![HOSTILE[0].into(), HOSTILE[2].into()]), vec![2]),
        (TokenSelector::Audiences(vec![token(1).audience]), vec![1, 3, 4, 5, 6]),
        (TokenSelector::Issuers(vec!["https://other.example.com".parse().unwrap()]), vec![5]),
        (
            TokenSelector::Issuers(
                ["https://login.example.com", "https://other.example.com"].map(|url| url.parse().unwrap()).into(),
            ),
            all.into(),
        ),
        (TokenSelector::Tokens(vec![]), vec![]),
    ];
    for (selector, want) in &selector {
        for page in [1, 2, 100] {
            let found = read_all_tokens(&*store, selector, NOW, page).await;
            let ids = found.iter().map(|token| token.id).collect::<BTreeSet<_>>();
            assert_eq!(ids, want.iter().map(|n| token_id(*n)).collect(), "{selector:?}");
            assert_eq!(found.len(), ids.len(), "{selector:?}: duplicates");
            let order = found.iter().map(|token| (token.issued, token.id)).collect::<Vec<_>>();
            assert!(order.is_sorted(), "{selector:?}");
            for found in found {
                assert!(tokens.contains(&found), "{found:?}");
            }
        }
    }
    let ended = read_all_tokens(&*store, &TokenSelector::Tasks(vec![task_id(1)]), at(NOW.unix() - 1), 10).await;
    assert_eq!(ended.iter().map(|token| token.id).collect::<Vec<_>>(), [7, 2, 1].map(token_id));
    assert_eq!(read_all_tokens(&*store, &selector[0].0, at(NOW.unix() + 300), 10).await, []);
}

conformance!(index_block_is_allocated_once, expired_shard_is_removed_after_grace, affected_tokens_are_found);
