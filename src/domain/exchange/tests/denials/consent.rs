//! Requests that need consent, and grants that don't give it.

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
    let with_grant = || Task { grant: Some(grant_id(1)), ..task(tools(&["read_file", "list_files"])) };
    let join = |grants: Vec<Grant>| {
        Case::with_user_token()
            .change(|c| (c.grants, c.task) = (grants, TaskRequest::Named(task_id(7), Some(Box::new(with_grant())))))
    };
    vec![
        needed("the resource requires consent", of_resource("required")),
        needed(
            "the issuer requires consent",
            Case::with_user_token().with_object(LOGIN, |login| login["consent"] = json!("required")),
        ),
        needed("the grant has no authority", granted(|g| g.authority = None)),
        needed("the grant is for less", granted(|g| g.authority = Some(tools(&["read_file"])))),
        needed("the grant expires this second", granted(|g| g.expires = NOW)),
        needed("the grant is from another user", granted(|g| g.requester.subject = "mallory".parse().unwrap())),
        needed(
            "the grant is from a user with this name at another issuer",
            granted(|g| g.requester.issuer = PARTNER.parse().unwrap()),
        ),
        needed("the grant is to another agent", granted(|g| g.agent = "reader".parse().unwrap())),
        needed(
            "two grants are not combined",
            granted(|g| g.authority = Some(tools(&["read_file"]))).change(|c| {
                c.grants.push(grant(2, Some(tools(&["list_files"]))));
            }),
        ),
        needed("only a grant names the agent, and it is for another tool", {
            let unbound = Case::with_user_token().with_user_claims(|u| u.client = None);
            unbound.change(|c| c.grants = vec![grant(1, Some(tools(&["search"])))])
        }),
        needed("the task's grant is gone", join(Vec::new())),
        needed("the task's grant is gone, and another one exists", join(vec![grant(2, reading())])),
        needed("a token from before consent was required", {
            Case::with_access_token().with_object("files", |files| files["consent"] = json!("required"))
        }),
    ]
}
