//! Re-registration under the same name: a new agent or issuer inherits nothing from the removed one
//! of the same name, and sees nothing of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    grants::consent::{details, expiry_in},
    server::{Form, IDP, NOTES, Server, decode_claims, form, form_with_changes, read_response, secret},
    tasks::requester_self_service::{API, call_api, with_portal},
};

/// Runs each test on both stores, at a server where alice's consent is possible and required.
macro_rules! portal_tests {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::with_portal(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::with_portal(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

portal_tests!(
    reregistered_agent_inherits_nothing,
    reregistered_agent_cannot_act_on_earlier_tasks,
    reregistered_file_agent_inherits_nothing,
    reregistered_issuer_inherits_nothing,
    grants_racing_with_removal_are_not_kept,
    tasks_racing_with_reregistration_are_not_inherited,
);

const SECOND: &str = "https://second.example";
const SECOND_PATH: &str = "/issuers/https%3A%2F%2Fsecond.example";

fn guest(issuer: &str, known_as: &str) -> Value {
    json!({"id": "guest", "authentication": {"method": "client_secret_basic"}, "known_as": {(issuer): [known_as]},
        "access": [{"resource": "files", "scopes": ["files:read"]}, {"resource": "notes", "scopes": ["notes:read"]}]})
}

fn consent(issuer: &str, subject: &str) -> Value {
    json!({"issuer": issuer, "subject": subject, "agent": "guest", "until": expiry_in(6000),
        "authorization_details": details(&["read_file", "list_files"])})
}

async fn exchange(server: &Server, secret: &str, form: &Form) -> (StatusCode, Value) {
    read_response(server.post("/oauth2/token").basic_auth("guest", Some(secret)).form(form).send().await.unwrap()).await
}

/// Returns an agent's view of a task, and checks that the list of its opened tasks agrees.
async fn read_task_status(server: &Server, secret: &str, task: &str) -> u16 {
    let asked = form(&[("grant_type", "client_credentials"), ("scope", "errand:tasks")]);
    let (status, body) = exchange(server, secret, &asked).await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    let (status, read) = call_api(server, token, Method::GET, &format!("/v1/tasks/{task}"), None).await;
    let (_, list) = call_api(server, token, Method::GET, "/v1/tasks?limit=1000", None).await;
    let is_listed = list["items"].as_array().unwrap().iter().any(|one| one["id"] == task);
    assert_eq!(is_listed, status == 200 && read["root_agent"] == "guest", "{status} {read} {list}");
    status.as_u16()
}

fn transaction_of(body: &Value) -> String {
    decode_claims(body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")))["txn"].as_str().unwrap().to_owned()
}

async fn grants_of_guest(server: &Server) -> Value {
    server.admin(Method::GET, "/grants?agent=guest", None).await.1["items"].clone()
}

/// Checks that a removal ended the task, and that the trail has the reason.
async fn assert_task_ended(server: &Server, task: &str) {
    let (_, task_now) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
    assert_eq!(
        (&task_now["state"], &task_now["last_transition"]["by"]),
        (&json!("revoked"), &json!("removal")),
        "{task_now}"
    );
    let (_, trail) = server.admin(Method::GET, &format!("/tasks/{task}/trail"), None).await;
    assert!(trail.to_string().contains("was removed; the task ended"), "{trail}");
}

async fn reregistered_agent_inherits_nothing(server: Server) {
    let other = server.replica().await;
    server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
    let old = server.create_secret("guest").await;
    let (status, body) = server.admin(Method::POST, "/grants", Some(consent(IDP, "alice"))).await;
    assert_eq!(status, 201, "{body}");
    let mut emergency = consent(IDP, "alice");
    emergency.as_object_mut().unwrap().remove("until");
    emergency["reason"] = json!("the report is due");
    let (status, emergency) = server.admin(Method::POST, "/break-glass", Some(emergency)).await;
    assert_eq!(status, 201, "{emergency}");
    let form = |known_as: &str| server.exchange_form(&server.user_token(json!({"client_id": known_as})));
    let (status, body) = exchange(&server, &old, &form("guest-client")).await;
    assert_eq!(status, 200, "{body}");
    let (token, task) = (body["access_token"].as_str().unwrap(), transaction_of(&body));
    assert_eq!(read_task_status(&server, &old, &task).await, 200);
    // The resource `notes` needs no consent.
    let notes = |form: Form| form_with_changes(&form, &[("resource", NOTES), ("scope", "notes:read")]);
    let for_notes = |known_as: &str| {
        notes(server.exchange_form(&server.user_token(json!({"client_id": known_as, "scope": "notes:read"}))))
    };
    let (status, body) = exchange(&server, &old, &for_notes("guest-client")).await;
    assert_eq!(status, 200, "{body}");
    let of_notes = transaction_of(&body);

    server.remove_object("/agents/guest").await;
    assert_task_ended(&server, &of_notes).await;
    assert_task_ended(&server, &task).await;
    assert_eq!(grants_of_guest(&server).await, json!([]));
    let path = format!("/break-glass/{}", emergency["id"].as_str().unwrap());
    assert_eq!(server.admin(Method::GET, &path, None).await.1["withdrawn"], true);
    server.put_object("/agents/guest", guest(IDP, "other-client")).await;
    let new = server.create_secret("guest").await;
    // As if the task had been opened at the last moment and not ended yet.
    let anew = format!("UPDATE tasks SET state = 'active' WHERE id = '{of_notes}'");
    server.rewrite_tasks(&anew).await;
    for at in [&server, &other] {
        let join = form_with_changes(&for_notes("other-client"), &[("purpose", ""), ("task_id", &of_notes)]);
        let (status, body) = exchange(at, &new, &join).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error_description"].as_str().unwrap().contains("no such task"), "{body}");
        assert_eq!(read_task_status(at, &new, &of_notes).await, 404);
        assert!(!at.is_active(token).await);
        // The consent to the removed agent does not apply, whether or not the user token is for the
        // new one.
        let (status, body) = exchange(at, &new, &form("other-client")).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("interaction_required")), "{body}");
        let (status, body) = exchange(at, &new, &form("guest-client")).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(read_task_status(at, &new, &task).await, 404);
    }
    // Its own grant works, and the task of the removed agent stays hidden.
    assert_eq!(server.admin(Method::POST, "/grants", Some(consent(IDP, "alice"))).await.0, 201);
    let join = form_with_changes(&form("other-client"), &[("purpose", ""), ("task_id", &task)]);
    let (status, body) = exchange(&other, &new, &join).await;
    assert_eq!(status, 400, "{body}");
    let (status, body) = exchange(&other, &new, &form("other-client")).await;
    assert_eq!(status, 200, "{body}");
    server.application.service.collect_garbage(&server.application.system_context().unwrap()).await.unwrap();
    assert_task_ended(&server, &of_notes).await;
    let join = form_with_changes(&join, &[("task_id", &transaction_of(&body))]);
    assert_eq!(exchange(&server, &new, &join).await.0, 200, "the task of the new agent continues");
    assert_eq!(read_task_status(&server, &new, &transaction_of(&body)).await, 200);
    // Changing an agent does not remove it.
    server.put_object("/agents/guest", guest(IDP, "third-client")).await;
    assert_eq!(exchange(&server, &new, &form("third-client")).await.0, 200);
    other.stop().await;
    server.stop().await;
}

async fn reregistered_agent_cannot_act_on_earlier_tasks(server: Server) {
    let lead = |may: Value| {
        json!({"id": "lead", "authentication": {"method": "client_secret_basic"}, "known_as": {(IDP): ["lead-client"]},
            "access": [{"resource": "files", "scopes": ["files:read"], "tools": []}], "may_delegate_to": may})
    };
    server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
    server.put_object("/agents/lead", lead(json!(["guest"]))).await;
    let (of_lead, old) = (server.create_secret("lead").await, server.create_secret("guest").await);
    let grant = Value::Object(consent(IDP, "alice").as_object().unwrap().clone());
    let grant = crate::server::with_changes(grant, json!({"agent": "lead"}));
    assert_eq!(server.admin(Method::POST, "/grants", Some(grant)).await.0, 201);
    let as_lead = async |form: &Form| {
        let request = server.post("/oauth2/token").basic_auth("lead", Some(&of_lead)).form(form);
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body
    };
    let body = as_lead(&server.exchange_form(&server.user_token(json!({"client_id": "lead-client"})))).await;
    let task = transaction_of(&body);
    let handed = as_lead(&server.delegation_form(body["access_token"].as_str().unwrap(), "guest")).await;
    let part = form_with_changes(&server.exchange_form(handed["access_token"].as_str().unwrap()), &[("purpose", "")]);
    assert_eq!(exchange(&server, &old, &part).await.0, 200);
    assert_eq!(read_task_status(&server, &old, &task).await, 200);
    server.put_object("/agents/lead", lead(json!([]))).await;
    server.remove_object("/agents/guest").await;
    server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
    server.put_object("/agents/lead", lead(json!(["guest"]))).await;
    let new = server.create_secret("guest").await;
    assert_eq!(read_task_status(&server, &new, &task).await, 404);
    // The task continues without the agent, and with it again after a new delegation.
    assert_eq!(server.admin(Method::GET, &format!("/tasks/{task}"), None).await.1["state"], "active");
    let handed = as_lead(&server.delegation_form(body["access_token"].as_str().unwrap(), "guest")).await;
    let part = form_with_changes(&server.exchange_form(handed["access_token"].as_str().unwrap()), &[("purpose", "")]);
    assert_eq!(exchange(&server, &new, &part).await.0, 200);
    assert_eq!(read_task_status(&server, &new, &task).await, 200);
    server.stop().await;
}

async fn reregistered_file_agent_inherits_nothing(server: Server) {
    let of_file = "[[agents]]\nid = \"guest\"\nauthentication = { method = \"client_secret_basic\", secret_file = \"guest.secret\" }\n\
        known_as = { \"https://login.example.com\" = [\"guest-client\"] }\n\
        access = [{ resource = \"files\", scopes = [\"files:read\"] }]\n";
    // With the file mode of secrets.
    let file = server.folder.path().join("guest.secret");
    std::fs::copy(file.with_file_name("writer.secret"), &file).unwrap();
    std::fs::write(&file, secret("guest")).unwrap();
    let with = server.restarted(|text| format!("{text}\n{of_file}")).await;
    assert_eq!(with.admin(Method::POST, "/grants", Some(consent(IDP, "alice"))).await.0, 201);
    let form = with.exchange_form(&with.user_token(json!({"client_id": "guest-client"})));
    let (status, body) = exchange(&with, &secret("guest"), &form).await;
    assert_eq!(status, 200, "{body}");
    // Applying the same file again changes nothing.
    let again = with.restarted(|text| text).await;
    assert_eq!(exchange(&again, &secret("guest"), &form).await.0, 200);
    let without = again.restarted_anyway(|text| text.replace(of_file, "")).await;
    assert_eq!(grants_of_guest(&without).await, json!([]));
    assert_task_ended(&without, &transaction_of(&body)).await;
    let back = without.restarted_anyway(|text| format!("{text}\n{of_file}")).await;
    let (status, answer) = exchange(&back, &secret("guest"), &form).await;
    assert_eq!((status.as_u16(), &answer["error"]), (400, &json!("interaction_required")), "{answer}");
    assert_eq!(read_task_status(&back, &secret("guest"), &transaction_of(&body)).await, 404);
    for server in [with, again, without, back, server] {
        server.stop().await;
    }
}

async fn reregistered_issuer_inherits_nothing(server: Server) {
    let second = json!({"issuer": SECOND, "keys": {"inline": server.idp.jwks()}, "audiences": [server.issuer],
        "algorithms": ["ES256"], "token_types": ["access_token"], "subject_prefix": "second:",
        "api_audiences": [API], "portal_clients": ["portal"]});
    server.put_object(SECOND_PATH, second.clone()).await;
    server.put_object("/agents/guest", guest(SECOND, "guest-client")).await;
    let guests = server.create_secret("guest").await;
    let bob = json!({"iss": SECOND, "sub": "second:bob", "client_id": "guest-client"});
    let at_the_portal =
        server.user_token(json!({"iss": SECOND, "sub": "second:bob", "client_id": "portal", "aud": API}));
    let form = server.exchange_form(&server.user_token(bob));
    let mut own = consent(SECOND, "second:bob");
    for name in ["issuer", "subject"] {
        own.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(call_api(&server, &at_the_portal, Method::POST, "/v1/grants", Some(own.clone())).await.0, 201);
    let (status, body) = exchange(&server, &guests, &form).await;
    assert_eq!(status, 200, "{body}");
    let path = format!("/v1/tasks/{}", transaction_of(&body));
    assert_eq!(call_api(&server, &at_the_portal, Method::GET, &path, None).await.0, 200);

    server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
    server.remove_object(SECOND_PATH).await;
    assert_task_ended(&server, &transaction_of(&body)).await;
    assert_eq!(grants_of_guest(&server).await, json!([]));
    server.put_object(SECOND_PATH, second).await;
    server.put_object("/agents/guest", guest(SECOND, "guest-client")).await;
    // A user of the same name, of another issuer.
    assert_eq!(call_api(&server, &at_the_portal, Method::GET, &path, None).await.0, 404);
    assert_eq!(call_api(&server, &at_the_portal, Method::GET, "/v1/tasks", None).await.1["items"], json!([]));
    let (status, answer) = exchange(&server, &guests, &form).await;
    assert_eq!((status.as_u16(), &answer["error"]), (400, &json!("interaction_required")), "{answer}");
    assert_eq!(call_api(&server, &at_the_portal, Method::POST, "/v1/grants", Some(own)).await.0, 201);
    let join = form_with_changes(&form, &[("purpose", ""), ("task_id", &transaction_of(&body))]);
    assert_eq!(exchange(&server, &guests, &join).await.0, 400);
    assert_eq!(exchange(&server, &guests, &form).await.0, 200);
    server.stop().await;
}

/// Grants are created while the agent is removed: no usable grant remains.
async fn grants_racing_with_removal_are_not_kept(server: Server) {
    let server = Arc::new(server);
    let admin = server.api_token("ops", "errand:admin").await;
    let (mut made, mut refused) = (0, 0);
    for round in 0..10 {
        server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
        let mut granting = JoinSet::new();
        for n in 0..8 {
            let (server, admin) = (Arc::clone(&server), admin.clone());
            granting.spawn(async move {
                let body = consent(IDP, &format!("alice-{n}"));
                server.admin_with(&admin, Method::POST, "/grants", Some(body)).await.0.as_u16()
            });
        }
        let removed = server.admin_with(&admin, Method::DELETE, "/agents/guest", None).await;
        assert_eq!(removed.0, 204, "{}", removed.1);
        while let Some(status) = granting.join_next().await {
            match status.unwrap() {
                201 => made += 1,
                404 => refused += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(grants_of_guest(&server).await, json!([]), "round {round}");
    }
    assert!(made > 0 && refused > 0, "it was no race: {made} made, {refused} refused");
}

/// The old agent exchanges while it is removed and another one is registered: the new agent gets
/// none of its tasks.
async fn tasks_racing_with_reregistration_are_not_inherited(server: Server) {
    let server = Arc::new(server);
    let admin = server.api_token("ops", "errand:admin").await;
    let form = Arc::new(server.exchange_form(&server.user_token(json!({"client_id": "guest-client"}))));
    server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
    let mut opened = 0;
    for round in 0..8 {
        let old = server.create_secret("guest").await;
        assert_eq!(server.admin_with(&admin, Method::POST, "/grants", Some(consent(IDP, "alice"))).await.0, 201);
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (server, form, old, stop) = (Arc::clone(&server), Arc::clone(&form), old.clone(), Arc::clone(&stop));
            clients.spawn(async move {
                let mut tasks = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let (status, body) = exchange(&server, &old, &form).await;
                    if status == 200 {
                        tasks.push(transaction_of(&body));
                    }
                }
                tasks
            });
        }
        // Some exchanges are in progress.
        let some = async || server.admin_with(&admin, Method::GET, "/tasks?state=active&limit=1", None).await.1;
        crate::server::wait_until("some are under way", async || some().await["items"] != json!([])).await;
        assert_eq!(server.admin_with(&admin, Method::DELETE, "/agents/guest", None).await.0, 204);
        server.put_object("/agents/guest", guest(IDP, "guest-client")).await;
        stop.store(true, Ordering::SeqCst);
        assert_eq!(server.admin_with(&admin, Method::POST, "/grants", Some(consent(IDP, "alice"))).await.0, 201);
        let new = server.create_secret("guest").await;
        while let Some(tasks) = clients.join_next().await {
            for task in tasks.unwrap() {
                opened += 1;
                let join = form_with_changes(&form, &[("purpose", ""), ("task_id", &task)]);
                let (status, body) = exchange(&server, &new, &join).await;
                assert_eq!(status, 400, "round {round}: {body}");
            }
        }
        // Maintenance ends tasks that were opened at the last moment.
        server.application.service.collect_garbage(&server.application.system_context().unwrap()).await.unwrap();
        let (_, tasks) = server.admin(Method::GET, "/tasks?state=active&limit=1000", None).await;
        assert_eq!(tasks["items"], json!([]), "round {round}");
    }
    assert!(opened > 0, "the requests did not overlap");
}
