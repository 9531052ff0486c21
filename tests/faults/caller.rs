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
    ground::{Ground, REPLICAS, secret},
    history::{Call, Change, Said, Target, Token, Told, Verb, What},
};

pub const IDP: &str = "https://login.example.com";
pub const FILES: &str = "https://files.example.com/mcp";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longer than a replica is ever paused: what was asked during a pause is answered after it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who calls, and what came of it.
pub struct Caller {
    ground: std::sync::Arc<Ground>,
    http: Client,
    begun: Instant,
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
pub struct Issued {
    pub jwt: String,
    pub token: Token,
}

type Form = Vec<(&'static str, String)>;

/// An answer, or that there was none.
struct Answer {
    status: Option<u16>,
    body: Value,
    start: Duration,
    end: Duration,
}

impl Answer {
    fn told(&self) -> Result<Told, String> {
        match self.status {
            Some(200) => Ok(Told::Done),
            Some(400 | 401 | 403 | 404 | 409) => Ok(Told::Refused),
            None | Some(202 | 503) => Ok(Told::Unknown),
            Some(status) => Err(format!("{status} {}", self.body)),
        }
    }

    /// What has been done to a task already, if that is why nothing was done to it now.
    fn already(&self) -> Option<Verb> {
        match (self.status?, self.body["state"].as_str()?) {
            (409, "completed" | "failed" | "revoked") => Some(Verb::End),
            (409, "suspended") => Some(Verb::Suspend),
            (409, "active") => Some(Verb::Resume),
            // At its deadline it is over for everybody, whether or not that has been written down.
            _ => None,
        }
    }
}

impl Caller {
    pub fn new(ground: std::sync::Arc<Ground>) -> Self {
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (history, admin) = (Mutex::default(), tokio::sync::Mutex::default());
        let is_silent = std::array::from_fn(|_| AtomicBool::new(false));
        Self { ground, http, begun: Instant::now(), epoch, history, is_silent, admin }
    }

    /// Time since it began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether nothing was heard of a replica the last time.
    pub fn is_silent(&self, at: usize) -> bool {
        self.is_silent[at].load(Ordering::SeqCst)
    }

    /// What has happened.
    pub fn history(&self) -> Vec<Call> {
        self.history.lock().unwrap().clone()
    }

    fn note(&self, at: usize, answer: &Answer, what: What) {
        let (start, end, is_answered) = (answer.start, answer.end, answer.status.is_some());
        self.is_silent[at].store(!is_answered, Ordering::SeqCst);
        self.history.lock().unwrap().push(Call { at, start, end, is_answered, what });
    }

    async fn send(&self, request: RequestBuilder) -> Answer {
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
        Answer { status, body, start, end: self.now() }
    }

    fn post(&self, at: usize, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.ground.replicas[at].url))
    }

    fn post_as(&self, at: usize, client: &str, path: &str, form: &Form) -> RequestBuilder {
        self.post(at, path).basic_auth(client, Some(secret(client))).form(form)
    }

    /// An assertion of the planner, with its one-time id.
    pub fn assertion(&self) -> (String, String) {
        let (now, jti) = (unix_now(), uuid::Uuid::new_v4().to_string());
        let claims = json!({"iss": "planner", "sub": "planner", "aud": self.ground.issuer, "iat": now, "exp": now + 60, "jti": jti});
        (self.ground.planner.sign("client-authentication+jwt", &claims), jti)
    }

    /// A user token of this requester, signed in at the client of this agent.
    fn user_token(&self, agent: &str, requester: &str) -> String {
        let now = unix_now();
        let claims = json!({
            "iss": IDP, "aud": self.ground.issuer, "sub": requester, "client_id": format!("{agent}-client"), "iat": now,
            "exp": now + 600, "jti": uuid::Uuid::new_v4(), "scope": "files:read files:write", "auth_time": now - 60,
        });
        self.ground.idp.sign("at+jwt", &claims)
    }

    /// A task token for `files` by a user token: opens a task.
    pub async fn open(&self, at: usize, agent: &str, requester: &str) -> Option<Issued> {
        let mut form = exchange(&self.user_token(agent, requester));
        form.extend([("resource", FILES.to_owned()), ("purpose", "to be taken back".to_owned())]);
        self.exchange(at, agent, form, self.assertion_of(agent)).await
    }

    /// A token derived from another by the same agent.
    pub async fn derive(&self, at: usize, from: &Issued) -> Option<Issued> {
        let agent = current_agent(from);
        let mut form = exchange(&from.jwt);
        form.push(("resource", FILES.to_owned()));
        self.exchange(at, &agent, form, self.assertion_of(&agent)).await
    }

    /// A part for the reader: the planner hands over, the reader redeems it.
    pub async fn hand_over(&self, at: usize, from: &Issued) -> Option<Issued> {
        let mut form = exchange(&from.jwt);
        form.push(("requested_actor", "reader".to_owned()));
        let hand_over = self.exchange(at, "planner", form, self.assertion_of("planner")).await?;
        let mut form = exchange(&hand_over.jwt);
        form.push(("resource", FILES.to_owned()));
        self.exchange(at, "reader", form, None).await
    }

    /// One assertion at several replicas at the same time.
    pub async fn open_by(&self, at: usize, requester: &str, assertion: (String, String)) -> Option<Issued> {
        let mut form = exchange(&self.user_token("planner", requester));
        form.extend([("resource", FILES.to_owned()), ("purpose", "to be had once".to_owned())]);
        self.exchange(at, "planner", form, Some(assertion)).await
    }

    fn assertion_of(&self, agent: &str) -> Option<(String, String)> {
        (agent == "planner").then(|| self.assertion())
    }

    async fn exchange(
        &self,
        at: usize,
        agent: &str,
        mut form: Form,
        assertion: Option<(String, String)>,
    ) -> Option<Issued> {
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
        let (what, issued) = match (answer.told(), jwt) {
            (Ok(Told::Done), Some(jwt)) => {
                let token = self.token(jwt, assertion.map(|(_, jti)| jti));
                (What::Issued(token.clone()), Some(Issued { jwt: jwt.to_owned(), token }))
            }
            (Ok(Told::Done), None) => (What::Strange(format!("200 {}", answer.body)), None),
            (Ok(told), _) => (What::NotIssued(told), None),
            (Err(strange), _) => (What::Strange(strange), None),
        };
        self.note(at, &answer, what);
        issued
    }

    fn token(&self, jwt: &str, assertion: Option<String>) -> Token {
        let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
        let claims = serde_json::from_slice::<Value>(&payload).unwrap();
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
            good_until: expires.saturating_sub(self.epoch).saturating_sub(Duration::from_secs(3)),
            assertion,
        }
    }

    /// What `files` is told about a token.
    pub async fn introspect(&self, at: usize, issued: &Issued) -> Said {
        let form = vec![("token", issued.jwt.clone())];
        let answer = self.send(self.post_as(at, "files", "/oauth2/introspect", &form)).await;
        let said = match (answer.told(), answer.body["active"].as_bool()) {
            (Ok(Told::Done), Some(true)) => Said::Active,
            (Ok(Told::Done), Some(false)) => Said::Inactive,
            (Ok(Told::Unknown), _) => Said::Unknown,
            _ => {
                let strange = format!("{:?} {}", answer.status, answer.body);
                self.note(at, &answer, What::Strange(strange));
                return Said::Unknown;
            }
        };
        self.note(at, &answer, What::Introspected { token: issued.token.id.clone(), said });
        said
    }

    /// Takes a token back, as the client that got it.
    pub async fn give_back(&self, at: usize, issued: &Issued) -> Told {
        let agent = current_agent(issued);
        let mut form = vec![("token", issued.jwt.clone())];
        let request = match self.assertion_of(&agent) {
            Some((assertion, _)) => {
                form.extend([("client_assertion_type", JWT_BEARER.to_owned()), ("client_assertion", assertion)]);
                self.post(at, "/oauth2/revoke").form(&form)
            }
            None => self.post_as(at, &agent, "/oauth2/revoke", &form),
        };
        self.change(at, request, Verb::End, Target::Token(issued.token.id.clone())).await
    }

    /// Takes something back as `ops`.
    pub async fn revoke(&self, at: usize, target: Target) -> Told {
        let Some(admin) = self.admin(at).await else { return Told::Refused };
        let (kind, key) = target.in_log();
        let mut body = match key.split_once(' ') {
            Some((issuer, subject)) => json!({"issuer": issuer, "subject": subject}),
            None if kind == "resource" => json!({"uri": key}),
            None => json!({"id": key}),
        };
        body["kind"] = json!(kind);
        body["reason"] = json!("the fault test");
        let request = self.post(at, "/v1/admin/revocations").bearer_auth(admin).json(&body);
        self.change(at, request, Verb::End, target).await
    }

    /// Does something to a task as `ops`: `suspend`, `resume`, `complete`, `fail`.
    pub async fn turn(&self, at: usize, task: &str, act: &str) -> Told {
        let Some(admin) = self.admin(at).await else { return Told::Refused };
        let (verb, body) = match act {
            "suspend" => (Verb::Suspend, json!({"reason": "the fault test"})),
            "resume" => (Verb::Resume, json!({})),
            "fail" => (Verb::End, json!({"reason": "the fault test"})),
            _ => (Verb::End, json!({})),
        };
        let request = self.post(at, &format!("/v1/admin/tasks/{task}/{act}")).bearer_auth(admin).json(&body);
        self.change(at, request, verb, Target::Task(task.to_owned())).await
    }

    async fn change(&self, at: usize, request: RequestBuilder, verb: Verb, target: Target) -> Told {
        let answer = self.send(request).await;
        match answer.told() {
            Ok(told) => {
                // Where it is already is an answer too, and holds everywhere like any other.
                let already = answer.already();
                let (verb, told) = already.map_or((verb, told), |already| (already, Told::Already));
                let seq = answer.body["seq"].as_u64();
                let propagated = answer.body["propagated_ms"].as_u64().map(Duration::from_millis);
                self.note(at, &answer, What::Changed(Change { verb, target, told, seq, propagated }));
                told
            }
            Err(strange) => {
                self.note(at, &answer, What::Strange(strange));
                Told::Unknown
            }
        }
    }

    /// An API token of `ops`, which is had again before it expires.
    async fn admin(&self, at: usize) -> Option<String> {
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

fn exchange(subject_token: &str) -> Form {
    vec![
        ("grant_type", EXCHANGE.to_owned()),
        ("subject_token", subject_token.to_owned()),
        ("subject_token_type", ACCESS_TOKEN.to_owned()),
        ("scope", "files:read".to_owned()),
    ]
}

/// The agent that got a token. The planner hands over to the reader, and the reader to nobody.
fn current_agent(issued: &Issued) -> String {
    let agent = if issued.token.agents.contains("reader") { "reader" } else { "planner" };
    agent.to_owned()
}

fn unix_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
