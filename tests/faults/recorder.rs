//! The recorder: makes calls and records each with its invocation and completion.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    admin_requests::AdminRequest,
    cluster::{Cluster, REPLICAS, secret},
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target, TaskSelection, Token},
};

pub const IDP: &str = "https://login.example.com";
pub const FILES: &str = "https://files.example.com/mcp";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longer than any pause of a replica: a call sent during a pause is answered after it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of all replicas, which records its calls in the history.
pub struct Recorder {
    cluster: std::sync::Arc<Cluster>,
    http: Client,
    started: Instant,
    /// The wall-clock time at the start.
    epoch: Duration,
    history: Mutex<Vec<Call>>,
    /// The replicas that did not answer the last call.
    is_silent: [AtomicBool; REPLICAS],
    /// The API token of `ops`, and the time at which it was fetched.
    admin: tokio::sync::Mutex<Option<(String, Instant)>>,
}

/// A token in its encoded form, with its contents.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    pub jwt: String,
    pub token: Token,
}

type Form = Vec<(&'static str, String)>;

/// An answer or its absence, with the times of the call.
struct TimedResponse {
    status: Option<u16>,
    body: Value,
    start: Duration,
    end: Duration,
}

impl TimedResponse {
    fn change_result(&self) -> Result<ChangeResult, String> {
        match self.status {
            Some(200 | 201 | 204) => Ok(ChangeResult::Done),
            Some(400 | 401 | 403 | 404 | 409) => Ok(ChangeResult::Refused),
            None | Some(202 | 503) => Ok(ChangeResult::Unknown),
            Some(status) => Err(format!("{status} {}", self.body)),
        }
    }

    /// Returns the action whose state is already in effect, if that is why the change was refused.
    fn already_applied(&self, target: &Target) -> Option<Action> {
        let text = |member: &str| self.body[member].as_str();
        match (self.status?, target) {
            // A token names the grant or key, so it existed and is gone.
            (404, Target::Grant(_) | Target::Key(_)) => Some(Action::End),
            (409, Target::Task(_)) => match text("state")? {
                "completed" | "failed" | "revoked" => Some(Action::End),
                "suspended" => Some(Action::Suspend),
                "active" => Some(Action::Resume),
                // A task expires at its deadline on every replica, whether or not the log has an
                // entry for that.
                _ => None,
            },
            (409, Target::Agent(_) | Target::Requester(_)) => match text("detail")? {
                "the party is already suspended"
                | "the party is suspended; resume it"
                | "the party is already blocked"
                | "the party is blocked; unblock it" => Some(Action::Suspend),
                "the party is not suspended"
                | "no admin has blocked the party; if its own entry disables it, change the entry" => {
                    Some(Action::Resume)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl Recorder {
    /// Returns a recorder with an empty history, whose clock starts now.
    pub fn new(cluster: std::sync::Arc<Cluster>) -> Self {
        let http = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().unwrap();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (history, admin) = (Mutex::default(), tokio::sync::Mutex::default());
        let is_silent = std::array::from_fn(|_| AtomicBool::new(false));
        Self { cluster, http, started: Instant::now(), epoch, history, is_silent, admin }
    }

    /// Returns the time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns whether the replica did not answer the last call.
    pub fn is_silent(&self, at: usize) -> bool {
        self.is_silent[at].load(Ordering::SeqCst)
    }

    /// Returns the history so far.
    pub fn history(&self) -> Vec<Call> {
        self.history.lock().unwrap().clone()
    }

    fn record(&self, at: usize, answer: &TimedResponse, event: Event) {
        let (start, end, is_answered) = (answer.start, answer.end, answer.status.is_some());
        self.is_silent[at].store(!is_answered, Ordering::SeqCst);
        self.history.lock().unwrap().push(Call { at, start, end, is_answered, event });
    }

    async fn send(&self, request: RequestBuilder) -> TimedResponse {
        let start = self.now();
        let (status, body) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                // A truncated answer counts as none.
                match response.text().await {
                    Ok(text) => (Some(status), serde_json::from_str(&text).unwrap_or(Value::String(text))),
                    Err(_) => (None, Value::Null),
                }
            }
            Err(_) => (None, Value::Null),
        };
        TimedResponse { status, body, start, end: self.now() }
    }

    fn post(&self, at: usize, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.cluster.replicas[at].url))
    }

    fn post_as(&self, at: usize, client: &str, path: &str, form: &Form) -> RequestBuilder {
        self.post(at, path).basic_auth(client, Some(secret(client))).form(form)
    }

    /// Returns a client assertion of the planner, with its `jti`.
    pub fn assertion(&self) -> (String, String) {
        let (now, jti) = (unix_now(), uuid::Uuid::new_v4().to_string());
        let claims = json!({"iss": "planner", "sub": "planner", "aud": self.cluster.issuer, "iat": now, "exp": now + 60, "jti": jti});
        (self.cluster.planner.sign("client-authentication+jwt", &claims), jti)
    }

    /// Returns a user token of this requester, issued to the client of this agent.
    fn user_token(&self, agent: &str, requester: &str) -> String {
        let now = unix_now();
        let claims = json!({
            "iss": IDP, "aud": self.cluster.issuer, "sub": requester, "client_id": format!("{agent}-client"), "iat": now,
            "exp": now + 600, "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60,
        });
        self.cluster.idp.sign("at+jwt", &claims)
    }

    /// Exchanges a user token for a task token for `files`, which opens a task.
    pub async fn open(&self, at: usize, agent: &str, requester: &str) -> Option<IssuedToken> {
        let mut form = exchange_form(&self.user_token(agent, requester));
        form.extend([("resource", FILES.to_owned()), ("purpose", "to be revoked".to_owned())]);
        self.exchange(at, agent, form, self.create_assertion(agent)).await
    }

    /// Exchanges a token for another of the same agent.
    pub async fn derive(&self, at: usize, from: &IssuedToken) -> Option<IssuedToken> {
        let agent = current_agent(from);
        let mut form = exchange_form(&from.jwt);
        form.push(("resource", FILES.to_owned()));
        self.exchange(at, &agent, form, self.create_assertion(&agent)).await
    }

    /// Delegates to the reader: the planner requests a hand-over token, and the reader exchanges
    /// it.
    pub async fn delegate(&self, at: usize, from: &IssuedToken) -> Option<IssuedToken> {
        let mut form = exchange_form(&from.jwt);
        form.push(("requested_actor", "reader".to_owned()));
        let hand_over = self.exchange(at, "planner", form, self.create_assertion("planner")).await?;
        let mut form = exchange_form(&hand_over.jwt);
        form.push(("resource", FILES.to_owned()));
        self.exchange(at, "reader", form, None).await
    }

    /// Opens a task with the given assertion, which the caller may send to several replicas at the
    /// same time.
    pub async fn open_with_assertion(
        &self,
        at: usize,
        requester: &str,
        assertion: (String, String),
    ) -> Option<IssuedToken> {
        let mut form = exchange_form(&self.user_token("planner", requester));
        form.extend([("resource", FILES.to_owned()), ("purpose", "to be issued once".to_owned())]);
        self.exchange(at, "planner", form, Some(assertion)).await
    }

    fn create_assertion(&self, agent: &str) -> Option<(String, String)> {
        (agent == "planner").then(|| self.assertion())
    }

    async fn exchange(
        &self,
        at: usize,
        agent: &str,
        mut form: Form,
        assertion: Option<(String, String)>,
    ) -> Option<IssuedToken> {
        let request = match &assertion {
            Some((assertion, _)) => {
                let credentials =
                    [("client_assertion_type", JWT_BEARER.to_owned()), ("client_assertion", assertion.clone())];
                form.extend(credentials);
                self.post(at, "/oauth2/token").form(&form)
            }
            None => self.post_as(at, agent, "/oauth2/token", &form),
        };
        let answer = self.send(request).await;
        let jwt = answer.body["access_token"].as_str();
        let (event, issued) = match (answer.change_result(), jwt) {
            (Ok(ChangeResult::Done), Some(jwt)) => {
                let token = self.parse_token(jwt, assertion.map(|(_, jti)| jti));
                (Event::Issued(token.clone()), Some(IssuedToken { jwt: jwt.to_owned(), token }))
            }
            (Ok(ChangeResult::Done), None) => (Event::UnexpectedResponse(format!("200 {}", answer.body)), None),
            (Ok(result), _) => (Event::NotIssued(result), None),
            (Err(unexpected), _) => (Event::UnexpectedResponse(unexpected), None),
        };
        self.record(at, &answer, event);
        issued
    }

    fn parse_token(&self, jwt: &str, assertion: Option<String>) -> Token {
        let part = |n| URL_SAFE_NO_PAD.decode(jwt.split('.').nth(n).unwrap()).unwrap();
        let decode = |n| serde_json::from_slice::<Value>(&part(n)).unwrap();
        let (header, claims) = (decode(0), decode(1));
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{claims}")).to_owned();
        let mut agents = [text(&claims["client_id"])].into_iter().collect::<std::collections::BTreeSet<_>>();
        let mut act = &claims["act"];
        while act.is_object() {
            agents.insert(text(&act["sub"]));
            act = &act["act"];
        }
        let expires = Duration::from_secs(claims["exp"].as_u64().unwrap());
        Token {
            id: text(&claims["jti"]),
            lineage: claims["lineage"].as_array().into_iter().flatten().map(text).collect(),
            task: text(&claims["txn"]),
            requester: format!("{} {}", text(&claims["sub_iss"]), text(&claims["sub"])),
            agents,
            resource: FILES.to_owned(),
            issuer: IDP.to_owned(),
            rev: claims["rev"].as_u64().unwrap(),
            valid_until: expires.saturating_sub(self.epoch).saturating_sub(Duration::from_secs(3)),
            assertion,
            grant: claims["grant"].as_str().map(ToOwned::to_owned),
            key: text(&header["kid"]),
        }
    }

    /// Creates a grant of this requester to this agent, for an hour.
    pub async fn grant(&self, at: usize, agent: &str, requester: &str) -> ChangeResult {
        let Some(admin) = self.admin_token(at).await else { return ChangeResult::Refused };
        let until = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
        let until = until.format(&time::format_description::well_known::Rfc3339).unwrap();
        let body = json!({"issuer": IDP, "subject": requester, "agent": agent, "until": until});
        let answer = self.send(self.post(at, "/v1/admin/grants").bearer_auth(&admin).json(&body)).await;
        // The limit of grants per requester and agent may be reached.
        let result = if answer.status == Some(422) { Ok(ChangeResult::Refused) } else { answer.change_result() };
        self.record_prepared(at, &answer, result).await
    }

    /// Runs the dry run of a change of many tasks and returns the confirmed request.
    pub async fn dry_run(&self, at: usize, verb: Action, selection: TaskSelection) -> Option<AdminRequest> {
        let admin = self.admin_token(at).await?;
        let request = AdminRequest::selection(verb, selection);
        let answer = self.send(self.post(at, &request.path).bearer_auth(&admin).json(&request.body)).await;
        let result = self.record_prepared(at, &answer, answer.change_result()).await;
        if result != ChangeResult::Done {
            return None;
        }
        let mut confirmed = request.confirmed(answer.body["confirmation"].as_str()?);
        if let Target::Tasks(selection) = &mut confirmed.target {
            (selection.dry_run_started, selection.dry_run_ended) = (answer.start, answer.end);
        }
        Some(confirmed)
    }

    async fn record_prepared(
        &self,
        at: usize,
        answer: &TimedResponse,
        result: Result<ChangeResult, String>,
    ) -> ChangeResult {
        self.check_admin_token(answer).await;
        let event = result.clone().map_or_else(Event::UnexpectedResponse, Event::Prepared);
        self.record(at, answer, event);
        result.unwrap_or(ChangeResult::Unknown)
    }

    /// Introspects a token as `files`.
    pub async fn introspect(&self, at: usize, issued: &IssuedToken) -> IntrospectionResult {
        let form = vec![("token", issued.jwt.clone())];
        let answer = self.send(self.post_as(at, "files", "/oauth2/introspect", &form)).await;
        let result = match (answer.change_result(), answer.body["active"].as_bool()) {
            (Ok(ChangeResult::Done), Some(true)) => IntrospectionResult::Active,
            (Ok(ChangeResult::Done), Some(false)) => IntrospectionResult::Inactive,
            (Ok(ChangeResult::Unknown), _) => IntrospectionResult::Unknown,
            _ => {
                let unexpected = format!("{:?} {}", answer.status, answer.body);
                self.record(at, &answer, Event::UnexpectedResponse(unexpected));
                return IntrospectionResult::Unknown;
            }
        };
        self.record(at, &answer, Event::Introspected { token: issued.token.id.clone(), result });
        result
    }

    /// Revokes a token as the client that it was issued to.
    pub async fn revoke_by_client(&self, at: usize, issued: &IssuedToken) -> ChangeResult {
        let agent = current_agent(issued);
        let mut form = vec![("token", issued.jwt.clone())];
        let request = match self.create_assertion(&agent) {
            Some((assertion, _)) => {
                form.extend([("client_assertion_type", JWT_BEARER.to_owned()), ("client_assertion", assertion)]);
                self.post(at, "/oauth2/revoke").form(&form)
            }
            None => self.post_as(at, &agent, "/oauth2/revoke", &form),
        };
        self.change(at, request, Action::End, Target::Token(issued.token.id.clone()), None).await
    }

    /// Sends a request for a change as `ops`.
    pub async fn send_admin_request(&self, at: usize, request: &AdminRequest) -> ChangeResult {
        let Some(admin) = self.admin_token(at).await else { return ChangeResult::Refused };
        let url = format!("{}{}", self.cluster.replicas[at].url, request.path);
        let mut builder = self.http.request(request.method.clone(), url).bearer_auth(admin);
        if !request.body.is_null() {
            builder = builder.json(&request.body);
        }
        // A confirmation identifies the request without an idempotency key.
        if let (Some(key), true) = (&request.key, request.body["confirmation"].is_null()) {
            builder = builder.header("idempotency-key", key);
        }
        self.change(at, builder, request.verb, request.target.clone(), request.key.clone()).await
    }

    /// Revokes a target as `ops`.
    pub async fn revoke(&self, at: usize, target: Target) -> ChangeResult {
        self.send_admin_request(at, &AdminRequest::change(Action::End, target)).await
    }

    async fn change(
        &self,
        at: usize,
        request: RequestBuilder,
        verb: Action,
        target: Target,
        key: Option<String>,
    ) -> ChangeResult {
        let answer = self.send(request).await;
        self.check_admin_token(&answer).await;
        match answer.change_result() {
            Ok(result) => {
                // "Already in effect" holds on all replicas, like an acknowledgement.
                let already = answer.already_applied(&target);
                let (verb, result) = already.map_or((verb, result), |already| (already, ChangeResult::Already));
                // A change of no tasks has no log position.
                let seq = answer.body["seq"].as_u64().filter(|_| answer.body["tasks"] != 0);
                let propagated = answer.body["propagated_ms"].as_u64().map(Duration::from_millis);
                self.record(at, &answer, Event::Changed(Change { verb, target, result, seq, propagated, key }));
                result
            }
            Err(unexpected) => {
                self.record(at, &answer, Event::UnexpectedResponse(unexpected));
                ChangeResult::Unknown
            }
        }
    }

    /// Discards the API token after a 401: the key that signed it may have been removed.
    async fn check_admin_token(&self, answer: &TimedResponse) {
        if answer.status == Some(401) {
            *self.admin.lock().await = None;
        }
    }

    /// Returns an API token of `ops`, which is fetched anew before it expires.
    async fn admin_token(&self, at: usize) -> Option<String> {
        let mut admin = self.admin.lock().await;
        if let Some((token, fetched_at)) = &*admin
            && fetched_at.elapsed() < Duration::from_mins(5)
        {
            return Some(token.clone());
        }
        let scope = "errand:admin errand:audit".to_owned();
        let form = vec![("grant_type", "client_credentials".to_owned()), ("scope", scope)];
        // Other callers wait for the lock meanwhile.
        let request = self.post_as(at, "ops", "/oauth2/token", &form).timeout(Duration::from_secs(3));
        let answer = self.send(request).await;
        let token = answer.body["access_token"].as_str()?.to_owned();
        *admin = Some((token.clone(), Instant::now()));
        Some(token)
    }
}

fn exchange_form(subject_token: &str) -> Form {
    vec![
        ("grant_type", EXCHANGE.to_owned()),
        ("subject_token", subject_token.to_owned()),
        ("subject_token_type", ACCESS_TOKEN.to_owned()),
        ("scope", "files:read".to_owned()),
    ]
}

/// Returns the agent that the token was issued to. Only the planner delegates, and only to the
/// reader.
fn current_agent(issued: &IssuedToken) -> String {
    let agents = &issued.token.agents;
    let agent = ["reader", "stranger"].into_iter().find(|agent| agents.contains(*agent));
    agent.unwrap_or("planner").to_owned()
}

fn unix_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
