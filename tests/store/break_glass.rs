//! Break-glass grants: the record that outlives the grant, and its single review.

use errand::{
    domain::grants::{
        Grant,
        break_glass::{BreakGlassGrant, Review, ReviewState},
    },
    ports::{ListError, PageRequest, StateChange, WriteSet},
};

use crate::{fixtures::*, support::TestStore};

pub fn sample_break_glass(n: u128) -> BreakGlassGrant {
    let grant = Grant {
        authority: Some(authority(&["read"])),
        by: format!("admin:{}", HOSTILE[0]),
        at: at(NOW.unix() + i64::try_from(n).unwrap()),
        break_glass: true,
        ..grant(n, HOSTILE[0], "planner")
    };
    BreakGlassGrant { grant, reason: HOSTILE[1].trim().parse().unwrap(), is_withdrawn: false, review: None }
}

pub fn review(by: &str) -> Review {
    Review { by: by.into(), at: at(NOW.unix() + 9), note: HOSTILE[2].trim().parse().unwrap() }
}

async fn break_glass_is_stored_and_reviewed_once(on: &TestStore) {
    let store = on.open().await;
    let change = async |changes: Vec<StateChange>| {
        commit_one(&*store, WriteSet { state_changes: changes, ..WriteSet::default() }).await;
    };
    let list = async |state| {
        let page = store.list_break_glass(state, &first_page(9)).await.unwrap();
        page.items.iter().map(|one| one.grant.id).collect::<Vec<_>>()
    };
    change((1..=3).map(|n| StateChange::PutBreakGlass(Box::new(sample_break_glass(n)))).collect()).await;
    // An ordinary grant is not listed.
    change(vec![StateChange::PutGrant(Box::new(grant(4, HOSTILE[0], "planner")))]).await;
    assert_eq!(store.find_break_glass(grant_id(4)).await.unwrap(), None);
    assert_eq!(store.find_break_glass(grant_id(1)).await.unwrap(), Some(sample_break_glass(1)));
    // A break-glass grant is a grant too.
    assert_eq!(store.find_grant(grant_id(1)).await.unwrap(), Some(sample_break_glass(1).grant));
    let between = store.list_live_grants(&requester(HOSTILE[0]), &client("planner"), NOW, 9).await.unwrap();
    assert_eq!(between.iter().filter(|grant| grant.break_glass).count(), 3);
    assert_eq!(list(None).await, [3, 2, 1].map(grant_id));
    assert_eq!(list(Some(ReviewState::Open)).await, [3, 2, 1].map(grant_id));
    assert_eq!(list(Some(ReviewState::Done)).await, []);

    change(vec![StateChange::RemoveGrant(grant_id(2))]).await;
    assert_eq!(
        store.find_break_glass(grant_id(2)).await.unwrap(),
        Some(BreakGlassGrant { is_withdrawn: true, ..sample_break_glass(2) })
    );
    assert_eq!(store.find_grant(grant_id(2)).await.unwrap(), None);
    change(vec![StateChange::ReviewBreakGlass(grant_id(2), review("admin:boss"))]).await;
    change(vec![
        StateChange::ReviewBreakGlass(grant_id(2), review("admin:late")),
        StateChange::ReviewBreakGlass(grant_id(77), review("admin:boss")),
    ])
    .await;
    let reviewed = store.find_break_glass(grant_id(2)).await.unwrap().unwrap();
    assert_eq!(reviewed.review, Some(review("admin:boss")), "the first review stays");
    assert_eq!(list(Some(ReviewState::Open)).await, [3, 1].map(grant_id));
    assert_eq!(list(Some(ReviewState::Done)).await, [grant_id(2)]);

    // In pages.
    let mut page = store.list_break_glass(Some(ReviewState::Open), &first_page(1)).await.unwrap();
    assert_eq!(page.items, [sample_break_glass(3)]);
    let after = PageRequest { cursor: page.next.take(), limit: 1 };
    let second = store.list_break_glass(Some(ReviewState::Open), &after).await.unwrap();
    assert_eq!(second.items, [sample_break_glass(1)]);
    let bad = PageRequest { cursor: Some("x".into()), limit: 1 };
    assert!(matches!(store.list_break_glass(None, &bad).await, Err(ListError::InvalidCursor)));
}

async fn self_review_is_rejected(on: &TestStore) {
    let store = on.open().await;
    let put = WriteSet {
        state_changes: vec![StateChange::PutBreakGlass(Box::new(sample_break_glass(1)))],
        ..WriteSet::default()
    };
    commit_one(&*store, put).await;
    let own = StateChange::ReviewBreakGlass(grant_id(1), review(&sample_break_glass(1).grant.by));
    let write = WriteSet { state_changes: vec![own], ..WriteSet::default() };
    let writer = errand::domain::audit::WriterId(uuid(1));
    assert!(store.commit(writer, &[write]).await.is_err(), "rejected by the schema too");
    assert_eq!(store.find_break_glass(grant_id(1)).await.unwrap(), Some(sample_break_glass(1)));
}

conformance!(break_glass_is_stored_and_reviewed_once, self_review_is_rejected);
