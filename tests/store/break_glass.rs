//! Grants for an emergency: what is kept of them when the grant is gone, and one review of each.

use errand::{
    domain::{
        break_glass::{BreakGlass, Review, ReviewState},
        grant::Grant,
    },
    ports::{Change, ListFault, Page, Write},
};

use crate::{samples::*, support::TestStore};

fn glass(n: u128) -> BreakGlass {
    let grant = Grant {
        authority: Some(authority(&["read"])),
        by: format!("admin:{}", HOSTILE[0]),
        at: at(NOW.unix() + i64::try_from(n).unwrap()),
        break_glass: true,
        ..grant(n, HOSTILE[0], "planner")
    };
    BreakGlass { grant, reason: HOSTILE[1].trim().parse().unwrap(), withdrawn: false, review: None }
}

fn review(by: &str) -> Review {
    Review { by: by.into(), at: at(NOW.unix() + 9), note: HOSTILE[2].trim().parse().unwrap() }
}

async fn it_is_kept_and_reviewed_once(on: &TestStore) {
    let store = on.open().await;
    let change = async |changes: Vec<Change>| {
        done(&*store, Write { changes, ..Write::default() }).await;
    };
    let list = async |state| {
        let page = store.break_glass_list(state, &first(9)).await.unwrap();
        page.items.iter().map(|one| one.grant.id).collect::<Vec<_>>()
    };
    change((1..=3).map(|n| Change::PutBreakGlass(Box::new(glass(n)))).collect()).await;
    // A grant of another kind is none of them.
    change(vec![Change::PutGrant(Box::new(grant(4, HOSTILE[0], "planner")))]).await;
    assert_eq!(store.break_glass(grant_id(4)).await.unwrap(), None);
    assert_eq!(store.break_glass(grant_id(1)).await.unwrap(), Some(glass(1)));
    // It is a grant.
    assert_eq!(store.grant(grant_id(1)).await.unwrap(), Some(glass(1).grant));
    let between = store.grants_between(&requester(HOSTILE[0]), &client("planner"), NOW, 9).await.unwrap();
    assert_eq!(between.iter().filter(|grant| grant.break_glass).count(), 3);
    assert_eq!(list(None).await, [3, 2, 1].map(grant_id));
    assert_eq!(list(Some(ReviewState::Open)).await, [3, 2, 1].map(grant_id));
    assert_eq!(list(Some(ReviewState::Done)).await, []);

    change(vec![Change::RemoveGrant(grant_id(2))]).await;
    assert_eq!(store.break_glass(grant_id(2)).await.unwrap(), Some(BreakGlass { withdrawn: true, ..glass(2) }));
    assert_eq!(store.grant(grant_id(2)).await.unwrap(), None);
    change(vec![Change::Review(grant_id(2), review("admin:boss"))]).await;
    change(vec![Change::Review(grant_id(2), review("admin:late")), Change::Review(grant_id(77), review("admin:boss"))])
        .await;
    let reviewed = store.break_glass(grant_id(2)).await.unwrap().unwrap();
    assert_eq!(reviewed.review, Some(review("admin:boss")), "the first one stays");
    assert_eq!(list(Some(ReviewState::Open)).await, [3, 1].map(grant_id));
    assert_eq!(list(Some(ReviewState::Done)).await, [grant_id(2)]);

    // Page by page.
    let mut page = store.break_glass_list(Some(ReviewState::Open), &first(1)).await.unwrap();
    assert_eq!(page.items, [glass(3)]);
    let after = Page { after: page.next.take(), limit: 1 };
    let second = store.break_glass_list(Some(ReviewState::Open), &after).await.unwrap();
    assert_eq!(second.items, [glass(1)]);
    let bad = Page { after: Some("x".into()), limit: 1 };
    assert!(matches!(store.break_glass_list(None, &bad).await, Err(ListFault::Cursor)));
}

async fn nobody_reviews_their_own(on: &TestStore) {
    let store = on.open().await;
    let put = Write { changes: vec![Change::PutBreakGlass(Box::new(glass(1)))], ..Write::default() };
    done(&*store, put).await;
    let own = Change::Review(grant_id(1), review(&glass(1).grant.by));
    let write = Write { changes: vec![own], ..Write::default() };
    let writer = errand::domain::audit::Writer(uuid(1));
    assert!(store.commit(writer, &[write]).await.is_err(), "not even by a mistake of ours");
    assert_eq!(store.break_glass(grant_id(1)).await.unwrap(), Some(glass(1)));
}

conformance!(it_is_kept_and_reviewed_once, nobody_reviews_their_own);
