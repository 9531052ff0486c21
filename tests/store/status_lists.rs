//! Status lists: numbers are taken once, and what may have been touched is found.

use std::collections::{BTreeMap, BTreeSet};

use errand::{
    domain::{status_list::Shard, time::Timestamp},
    ports::{Having, ListedAfter, Store, TokenRecord, Write},
};
use tokio::task::JoinSet;

use crate::{samples::*, support::TestStore};

const REPLICAS: usize = 3;
const EACH: usize = 20;

fn shard(n: i64) -> Shard {
    Shard::of(at(NOW.unix() + 300 * n))
}

async fn a_block_is_taken_once(on: &TestStore) {
    let mut taking = JoinSet::new();
    for replica in 0..REPLICAS {
        let store = on.open().await;
        taking.spawn(async move {
            let mut taken = Vec::new();
            for n in 0..EACH {
                let shard = shard(i64::try_from((n + replica) % 2).unwrap());
                taken.push((shard.end(), store.take_status_block(shard).await.unwrap()));
            }
            taken
        });
    }
    let mut blocks = BTreeMap::<i64, Vec<u64>>::new();
    for (shard, block) in taking.join_all().await.into_iter().flatten() {
        blocks.entry(shard).or_default().push(block);
    }
    let store = on.open().await;
    let half = REPLICAS * EACH / 2;
    for taken in blocks.values_mut() {
        taken.sort_unstable();
        assert_eq!(*taken, (0..u64::try_from(half).unwrap()).collect::<Vec<_>>(), "each once, and none left out");
    }
    let half = u64::try_from(half).unwrap();
    assert_eq!(store.status_shards(NOW).await.unwrap(), [(shard(1), half)]);
    let before = at(NOW.unix() - 1);
    assert_eq!(store.status_shards(before).await.unwrap(), [(shard(0), half), (shard(1), half)]);
}

async fn a_shard_is_forgotten_long_after_it_is_over(on: &TestStore) {
    let store = on.open().await;
    for n in [0, 1] {
        assert_eq!(store.take_status_block(shard(n)).await.unwrap(), 0);
    }
    let day = 24 * 3600;
    for (now, dropped) in [(day - 1, 0), (day, 1), (day, 0), (day + 300, 1)] {
        assert_eq!(store.sweep(at(NOW.unix() + now)).await.unwrap().shards, dropped, "{now}");
    }
    assert_eq!(store.status_shards(Timestamp::EPOCH).await.unwrap(), []);
}

async fn all(store: &dyn Store, having: &Having, alive_at: Timestamp, page: u32) -> Vec<TokenRecord> {
    let (mut found, mut after) = (Vec::<TokenRecord>::new(), ListedAfter::default());
    loop {
        let tokens = store.listed_tokens(having, alive_at, after, page).await.unwrap();
        assert!(tokens.len() <= page as usize);
        let Some(last) = tokens.last() else { return found };
        after = ListedAfter { issued: last.issued, id: last.id };
        found.extend(tokens);
    }
}

async fn what_may_have_been_touched_is_found(on: &TestStore) {
    let store = on.open().await;
    let plain = |n| TokenRecord { task: Some(task_id(n)), grant: None, client: client("reader"), ..token(n) };
    let tokens = [
        TokenRecord { task: Some(task_id(1)), issued: at(NOW.unix() + 2), ..plain(1) },
        // Of the same task, somebody else's, at another resource.
        TokenRecord { task: Some(task_id(1)), client: client("writer"), audience: HOSTILE[0].into(), ..plain(2) },
        TokenRecord { grant: Some(grant_id(9)), ..plain(3) },
        TokenRecord { requester: Some(requester("zoë")), ..plain(4) },
        // Another provider's person of the same name.
        TokenRecord {
            requester: Some(errand::domain::task::Requester {
                issuer: "https://other.example.com".parse().unwrap(),
                ..requester("zoë")
            }),
            ..plain(5)
        },
        TokenRecord { client: client("planner"), ..plain(6) },
        // Has ended, is in no list.
        TokenRecord { task: Some(task_id(1)), issued: at(NOW.unix() - 300), expires: NOW, ..plain(7) },
        TokenRecord { task: Some(task_id(1)), status: None, ..plain(8) },
    ];
    let writes = tokens.iter().map(|token| Write { token: Some(token.clone()), ..Write::default() });
    commit(&*store, &writes.collect::<Vec<_>>()).await;
    let everybody = [1, 2, 3, 4, 5, 6];
    let having = [
        (Having::Tokens(vec![token_id(2)]), vec![1, 2]),
        (Having::Tokens(vec![token_id(7), token_id(3), token_id(99)]), vec![1, 2, 3]),
        (Having::Tasks(vec![task_id(1), task_id(4)]), vec![1, 2, 4]),
        (Having::Tasks(vec![task_id(99)]), vec![]),
        (Having::Grants(vec![grant_id(9), grant_id(8)]), vec![3]),
        (Having::Requesters(vec![("https://login.example.com".into(), "zoë".into())]), vec![4]),
        (Having::Requesters(vec![("https://login.example.com".into(), HOSTILE[1].into())]), vec![]),
        (Having::Agents(vec![client("writer"), client("planner")]), vec![1, 2, 6]),
        (Having::Audiences(vec![HOSTILE[0].into(), HOSTILE[2].into()]), vec![2]),
        (Having::Audiences(vec![token(1).audience]), vec![1, 3, 4, 5, 6]),
        (Having::Issuers(vec!["https://other.example.com".parse().unwrap()]), vec![5]),
        (
            Having::Issuers(
                ["https://login.example.com", "https://other.example.com"].map(|url| url.parse().unwrap()).into(),
            ),
            everybody.into(),
        ),
        (Having::Tokens(vec![]), vec![]),
    ];
    for (having, want) in &having {
        for page in [1, 2, 100] {
            let found = all(&*store, having, NOW, page).await;
            let ids = found.iter().map(|token| token.id).collect::<BTreeSet<_>>();
            assert_eq!(ids, want.iter().map(|n| token_id(*n)).collect(), "{having:?}");
            assert_eq!(found.len(), ids.len(), "{having:?}: one twice");
            let order = found.iter().map(|token| (token.issued, token.id)).collect::<Vec<_>>();
            assert!(order.is_sorted(), "{having:?}");
            for found in found {
                assert!(tokens.contains(&found), "{found:?}");
            }
        }
    }
    let ended = all(&*store, &Having::Tasks(vec![task_id(1)]), at(NOW.unix() - 1), 10).await;
    assert_eq!(ended.iter().map(|token| token.id).collect::<Vec<_>>(), [7, 2, 1].map(token_id));
    assert_eq!(all(&*store, &having[0].0, at(NOW.unix() + 300), 10).await, []);
}

conformance!(a_block_is_taken_once, a_shard_is_forgotten_long_after_it_is_over, what_may_have_been_touched_is_found);
