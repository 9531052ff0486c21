//! Where consent is demanded, and what is none.

use super::*;

pub(super) fn consent_rows() -> Vec<Row> {
    let needed = |what, case| (what, case, Denial::ConsentRequired);
    let of_resource =
        |word: &'static str| Case::with_user_token().with_object("files", move |files| files["consent"] = json!(word));
    let reading = || Some(tools(&["read_file", "list_files"]));
    let granted = |change: fn(&mut Grant)| {
        let mut one = grant(1, reading());
        change(&mut one);
        of_resource("required").change(|c| c.grants = vec![one])
    };
    let on_a_grant = || Task { grant: Some(grant_id(1)), ..task(tools(&["read_file", "list_files"])) };
    let join = |grants: Vec<Grant>| {
        Case::with_user_token()
            .change(|c| (c.grants, c.task) = (grants, TaskRequest::Named(task_id(7), Some(Box::new(on_a_grant())))))
    };
    vec![
        needed("the resource demands it", of_resource("required")),
        needed(
            "the issuer demands it",
            Case::with_user_token().with_object(LOGIN, |login| login["consent"] = json!("required")),
        ),
        needed("the grant says who, not what for", granted(|g| g.authority = None)),
        needed("the grant is for less", granted(|g| g.authority = Some(tools(&["read_file"])))),
        needed("the grant is over, to the second", granted(|g| g.expires = NOW)),
        needed("the grant is of somebody else", granted(|g| g.requester.subject = "mallory".parse().unwrap())),
        needed("the grant is of their namesake", granted(|g| g.requester.issuer = PARTNER.parse().unwrap())),
        needed("the grant is to another agent", granted(|g| g.agent = "reader".parse().unwrap())),
        needed(
            "two grants are not one",
            granted(|g| g.authority = Some(tools(&["read_file"]))).change(|c| {
                c.grants.push(grant(2, Some(tools(&["list_files"]))));
            }),
        ),
        needed("nothing else points at the agent, and the grant is for something else", {
            let unpointed = Case::with_user_token().with_user_claims(|u| u.client = None);
            unpointed.change(|c| c.grants = vec![grant(1, Some(tools(&["search"])))])
        }),
        needed("the grant of the task is gone", join(Vec::new())),
        needed("the grant of the task is gone, and there is another", join(vec![grant(2, reading())])),
        needed("a token from before consent was demanded", {
            Case::with_access_token().with_object("files", |files| files["consent"] = json!("required"))
        }),
    ]
}
