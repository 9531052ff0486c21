//! Makes calls, and writes each of them down with when it began and when it was over.

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
/// Longer than a replica is ever paused: what was asked during a pause is answered after it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Who calls, and what came of it.
pub struct Recorder {
    cluster: std::sync::Arc<Cluster>,
    http: Client,
    started: Instant,
    /// The wall clock when it began.
    epoch: Duration,
    history: Mutex<Vec<Call>>,
    /// Which replicas didn't answer the last time.
    is_silent: [AtomicBool; REPLICAS],
    /// The API token of `ops`, and when it was had.
    admin: tokio::sync::Mutex<Option<(String, Instant)>>,
}

/// A token with what it says.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    pub jwt: String,
    pub token: Token,
}

type Form = Vec<(&'static str, String)>;

/// An answer, or that there was none.
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

    /// What is so already, if that is why nothing was done now.
    fn already_applied(&self, target: &Target) -> Option<Action> {
        let text = |member: &str| self.body[member].as_str();
        match (self.status?, target) {
            // There was one: a token names it.
            (404, Target::Grant(_) | Target::Key(_)) => Some(Action::End),
            (409, Target::Task(_)) => match text("state")? {
                "completed" | "failed" | "revoked" => Some(Action::End),
                "suspended" => Some(Action::Suspend),
                "active" => Some(Action::Resume),
                // At its deadline it is over for everybody, whether or not that has been written down.
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
    pub fn new(ground: std::sync::Arc<Cluster>) -> Self {
        let http = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().unwrap();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (history, admin) = (Mutex::default(), tokio::sync::Mutex::default());
        let is_silent = std::array::from_fn(|_| AtomicBool::new(false));
        Self { cluster: ground, http, started: Instant::now(), epoch, history, is_silent, admin }
    }

    /// Time since it began.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether nothing was heard of a replica the last time.
    pub fn is_silent(&self, at: usize) -> bool {
        self.is_silent[at].load(Ordering::SeqCst)
    }

    /// What has happened.
    pub fn history(&self) -> Vec<Call> {
        self.history.lock().unwrap().clone()
    }

    fn record(&self, at: usize, answer: &TimedResponse, what: Event) {
        let (start, end, is_answered) = (answer.start, answer.end, answer.status.is_some());
        self.is_silent[at].store(!is_answered, Ordering::SeqCst);
        self.history.lock().unwrap().push(Call { at, start, end, is_answered, event: what });
    }

    async fn send(&self, request: RequestBuilder) -> TimedResponse {
        let start = self.now();
        let (status, body) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                // Cut off in the middle of an answer is no answer.
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

    /// An assertion of the planner, with its one-time id.
    pub fn assertion(&self) -> (String, String) {
        let (now, jti) = (unix_now(), uuid::Uuid::new_v4().to_string());
        let claims = json!({"iss": "planner", "sub": "planner", "aud": self.cluster.issuer, "iat": now, "exp": now + 60, "jti": jti});
        (self.cluster.planner.sign("client-authentication+jwt", &claims), jti)
    }

    /// A user token of this requester, signed in at the client of this agent.
    fn user_token(&self, agent: &str, requester: &str) -> String {
        let now = unix_now();
        let claims = json!({
            "iss": IDP, "aud": self.cluster.issuer, "sub": requester, "client_id": format!("{agent}-client"), "iat": now,
            "exp": now + 600, "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60,
        });
        self.cluster.idp.sign("at+jwt", &claims)
    }

    /// A task token for `files` by a user token: opens a task.
    pub async fn open(&self, at: usize, agent: &str, requester: &str) -> Option<IssuedToken> {
        let mut form = exchange_form(&self.user_token(agent, requester));
        form.extend([("resource", FILES.to_owned()), ("purpose", "to be taken back".to_owned())]);
        self.exchange(at, agent, form, self.create_assertion(agent)).await
    }

    /// A token derived from another by the same agent.
    pub async fn derive(&self, at: usize, from: &IssuedToken) -> Option<IssuedToken> {
        let agent = current_agent(from);
        let mut form = exchange_form(&from.jwt);
        form.push(("resource", FILES.to_owned()));
        self.exchange(at, &agent, form, self.create_assertion(&agent)).await
    }

    /// A part for the reader: the planner hands over, the reader redeems it.
    pub async fn delegate(&self, at: usize, from: &IssuedToken) -> Option<IssuedToken> {
        let mut form = exchange_form(&from.jwt);
        form.push(("requested_actor", "reader".to_owned()));
        let hand_over = self.exchange(at, "planner", form, self.create_assertion("planner")).await?;
        let mut form = exchange_form(&hand_over.jwt);
        form.push(("resource", FILES.to_owned()));
        self.exchange(at, "reader", form, None).await
    }

    /// One assertion at several replicas at the same time.
    pub async fn open_with_assertion(
        &self,
        at: usize,
        requester: &str,
        assertion: (String, String),
    ) -> Option<IssuedToken> {
        let mut form = exchange_form(&self.user_token("planner", requester));
        form.extend([("resource", FILES.to_owned()), ("purpose", "to be had once".to_owned())]);
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
                let proof = [("client_assertion_type", JWT_BEARER.to_owned()), ("client_assertion", assertion.clone())];
                form.extend(proof);
                self.post(at, "/oauth2/token").form(&form)
            }
            None => self.post_as(at, agent, "/oauth2/token", &form),
        };
        let answer = self.send(request).await;
        let jwt = answer.body["access_token"].as_str();
        let (what, issued) = match (answer.change_result(), jwt) {
            (Ok(ChangeResult::Done), Some(jwt)) => {
                let token = self.parse_token(jwt, assertion.map(|(_, jti)| jti));
                (Event::Issued(token.clone()), Some(IssuedToken { jwt: jwt.to_owned(), token }))
            }
            (Ok(ChangeResult::Done), None) => (Event::UnexpectedResponse(format!("200 {}", answer.body)), None),
            (Ok(told), _) => (Event::NotIssued(told), None),
            (Err(strange), _) => (Event::UnexpectedResponse(strange), None),
        };
        self.record(at, &answer, what);
        issued
    }

    fn parse_token(&self, jwt: &str, assertion: Option<String>) -> Token {
        let part = |n| URL_SAFE_NO_PAD.decode(jwt.split('.').nth(n).unwrap()).unwrap();
        let read = |n| serde_json::from_slice::<Value>(&part(n)).unwrap();
        let (header, claims) = (read(0), read(1));
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

    /// A grant of this requester to this agent, for an hour.
    pub async fn grant(&self, at: usize, agent: &str, requester: &str) -> ChangeResult {
        let Some(admin) = self.admin_token(at).await else { return ChangeResult::Refused };
        let until = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
        let until = until.format(&time::format_description::well_known::Rfc3339).unwrap();
        let body = json!({"issuer": IDP, "subject": requester, "agent": agent, "until": until});
        let answer = self.send(self.post(at, "/v1/admin/grants").bearer_auth(&admin).json(&body)).await;
        // There may be enough of them.
        let told = if answer.status == Some(422) { Ok(ChangeResult::Refused) } else { answer.change_result() };
        self.record_prepared(at, &answer, told).await
    }

    /// What an admin is shown before many tasks are changed, so that they can be.
    pub async fn dry_run(&self, at: usize, verb: Action, selection: TaskSelection) -> Option<AdminRequest> {
        let admin = self.admin_token(at).await?;
        let wish = AdminRequest::selection(verb, selection);
        let answer = self.send(self.post(at, &wish.path).bearer_auth(&admin).json(&wish.body)).await;
        let told = self.record_prepared(at, &answer, answer.change_result()).await;
        if told != ChangeResult::Done {
            return None;
        }
        let mut wish = wish.confirmed(answer.body["confirmation"].as_str()?);
        if let Target::Tasks(selection) = &mut wish.target {
            (selection.dry_run_started, selection.dry_run_ended) = (answer.start, answer.end);
        }
        Some(wish)
    }

    async fn record_prepared(
        &self,
        at: usize,
        answer: &TimedResponse,
        told: Result<ChangeResult, String>,
    ) -> ChangeResult {
        self.check_admin_token(answer).await;
        let what = told.clone().map_or_else(Event::UnexpectedResponse, Event::Prepared);
        self.record(at, answer, what);
        told.unwrap_or(ChangeResult::Unknown)
    }

    /// What `files` is told about a token.
    pub async fn introspect(&self, at: usize, issued: &IssuedToken) -> IntrospectionResult {
        let form = vec![("token", issued.jwt.clone())];
        let answer = self.send(self.post_as(at, "files", "/oauth2/introspect", &form)).await;
        let said = match (answer.change_result(), answer.body["active"].as_bool()) {
            (Ok(ChangeResult::Done), Some(true)) => IntrospectionResult::Active,
            (Ok(ChangeResult::Done), Some(false)) => IntrospectionResult::Inactive,
            (Ok(ChangeResult::Unknown), _) => IntrospectionResult::Unknown,
            _ => {
                let strange = format!("{:?} {}", answer.status, answer.body);
                self.record(at, &answer, Event::UnexpectedResponse(strange));
                return IntrospectionResult::Unknown;
            }
        };
        self.record(at, &answer, Event::Introspected { token: issued.token.id.clone(), result: said });
        said
    }

    /// Takes a token back, as the client that got it.
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

    /// Asks for a change as `ops`.
    pub async fn send_admin_request(&self, at: usize, wish: &AdminRequest) -> ChangeResult {
        let Some(admin) = self.admin_token(at).await else { return ChangeResult::Refused };
        let url = format!("{}{}", self.cluster.replicas[at].url, wish.path);
        let mut request = self.http.request(wish.method.clone(), url).bearer_auth(admin);
        if !wish.body.is_null() {
            request = request.json(&wish.body);
        }
        // A confirmation is one by itself.
        if let (Some(key), true) = (&wish.key, wish.body["confirmation"].is_null()) {
            request = request.header("idempotency-key", key);
        }
        self.change(at, request, wish.verb, wish.target.clone(), wish.key.clone()).await
    }

    /// Takes something back as `ops`.
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
            Ok(told) => {
                // Where it is already is an answer too, and holds everywhere like any other.
                let already = answer.already_applied(&target);
                let (verb, told) = already.map_or((verb, told), |already| (already, ChangeResult::Already));
                // Where there was nothing to do, nothing has a place.
                let seq = answer.body["seq"].as_u64().filter(|_| answer.body["tasks"] != 0);
                let propagated = answer.body["propagated_ms"].as_u64().map(Duration::from_millis);
                self.record(at, &answer, Event::Changed(Change { verb, target, result: told, seq, propagated, key }));
                told
            }
            Err(strange) => {
                self.record(at, &answer, Event::UnexpectedResponse(strange));
                ChangeResult::Unknown
            }
        }
    }

    /// An API token may have been signed by a key that is removed: another one is had.
    async fn check_admin_token(&self, answer: &TimedResponse) {
        if answer.status == Some(401) {
            *self.admin.lock().await = None;
        }
    }

    /// An API token of `ops`, which is had again before it expires.
    async fn admin_token(&self, at: usize) -> Option<String> {
        let mut admin = self.admin.lock().await;
        if let Some((token, had)) = &*admin
            && had.elapsed() < Duration::from_mins(5)
        {
            return Some(token.clone());
        }
        let scope = "errand:admin errand:audit".to_owned();
        let form = vec![("grant_type", "client_credentials".to_owned()), ("scope", scope)];
        // Others wait for it meanwhile.
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

/// The agent that got a token. The planner hands over to the reader, and nobody else to anybody.
fn current_agent(issued: &IssuedToken) -> String {
    let agents = &issued.token.agents;
    let agent = ["reader", "stranger"].into_iter().find(|agent| agents.contains(*agent));
    agent.unwrap_or("planner").to_owned()
}

fn unix_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
