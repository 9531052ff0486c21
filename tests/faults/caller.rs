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
    history::{Call, Change, Said, Selection, Target, Token, Told, Verb, What},
    wishes::Wish,
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
            Some(200 | 201 | 204) => Ok(Told::Done),
            Some(400 | 401 | 403 | 404 | 409) => Ok(Told::Refused),
            None | Some(202 | 503) => Ok(Told::Unknown),
            Some(status) => Err(format!("{status} {}", self.body)),
        }
    }

    /// What is so already, if that is why nothing was done now.
    fn already(&self, target: &Target) -> Option<Verb> {
        let text = |member: &str| self.body[member].as_str();
        match (self.status?, target) {
            // There was one: a token names it.
            (404, Target::Grant(_) | Target::Key(_)) => Some(Verb::End),
            (409, Target::Task(_)) => match text("state")? {
                "completed" | "failed" | "revoked" => Some(Verb::End),
                "suspended" => Some(Verb::Suspend),
                "active" => Some(Verb::Resume),
                // At its deadline it is over for everybody, whether or not that has been written down.
                _ => None,
            },
            (409, Target::Agent(_) | Target::Requester(_)) => match text("detail")? {
                "it is suspended already"
                | "it is suspended: resume it"
                | "it is disabled already"
                | "it is disabled: enable it" => Some(Verb::Suspend),
                "it is not suspended" | "no admin has disabled it: what its own entry says is changed there" => {
                    Some(Verb::Resume)
                }
                _ => None,
            },
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
            good_until: expires.saturating_sub(self.epoch).saturating_sub(Duration::from_secs(3)),
            assertion,
            grant: claims["grant"].as_str().map(ToOwned::to_owned),
            key: text(&header["kid"]),
        }
    }

    /// A grant of this requester to this agent, for an hour.
    pub async fn grant(&self, at: usize, agent: &str, requester: &str) -> Told {
        let Some(admin) = self.admin(at).await else { return Told::Refused };
        let until = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
        let until = until.format(&time::format_description::well_known::Rfc3339).unwrap();
        let body = json!({"issuer": IDP, "subject": requester, "agent": agent, "until": until});
        let answer = self.send(self.post(at, "/v1/admin/grants").bearer_auth(&admin).json(&body)).await;
        // There may be enough of them.
        let told = if answer.status == Some(422) { Ok(Told::Refused) } else { answer.told() };
        self.prepared(at, &answer, told).await
    }

    /// What an admin is shown before many tasks are changed, so that they can be.
    pub async fn dry_run(&self, at: usize, verb: Verb, selection: Selection) -> Option<Wish> {
        let admin = self.admin(at).await?;
        let wish = Wish::selection(verb, selection);
        let answer = self.send(self.post(at, &wish.path).bearer_auth(&admin).json(&wish.body)).await;
        let told = self.prepared(at, &answer, answer.told()).await;
        if told != Told::Done {
            return None;
        }
        let mut wish = wish.confirmed(answer.body["confirmation"].as_str()?);
        if let Target::Tasks(selection) = &mut wish.target {
            (selection.asked, selection.shown) = (answer.start, answer.end);
        }
        Some(wish)
    }

    async fn prepared(&self, at: usize, answer: &Answer, told: Result<Told, String>) -> Told {
        self.look_at_admin(answer).await;
        let what = told.clone().map_or_else(What::Strange, What::Prepared);
        self.note(at, answer, what);
        told.unwrap_or(Told::Unknown)
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
        self.change(at, request, Verb::End, Target::Token(issued.token.id.clone()), None).await
    }

    /// Asks for a change as `ops`.
    pub async fn wish(&self, at: usize, wish: &Wish) -> Told {
        let Some(admin) = self.admin(at).await else { return Told::Refused };
        let url = format!("{}{}", self.ground.replicas[at].url, wish.path);
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
    pub async fn revoke(&self, at: usize, target: Target) -> Told {
        self.wish(at, &Wish::change(Verb::End, target)).await
    }

    async fn change(
        &self,
        at: usize,
        request: RequestBuilder,
        verb: Verb,
        target: Target,
        key: Option<String>,
    ) -> Told {
        let answer = self.send(request).await;
        self.look_at_admin(&answer).await;
        match answer.told() {
            Ok(told) => {
                // Where it is already is an answer too, and holds everywhere like any other.
                let already = answer.already(&target);
                let (verb, told) = already.map_or((verb, told), |already| (already, Told::Already));
                // Where there was nothing to do, nothing has a place.
                let seq = answer.body["seq"].as_u64().filter(|_| answer.body["tasks"] != 0);
                let propagated = answer.body["propagated_ms"].as_u64().map(Duration::from_millis);
                self.note(at, &answer, What::Changed(Change { verb, target, told, seq, propagated, key }));
                told
            }
            Err(strange) => {
                self.note(at, &answer, What::Strange(strange));
                Told::Unknown
            }
        }
    }

    /// An API token may have been signed by a key that is removed: another one is had.
    async fn look_at_admin(&self, answer: &Answer) {
        if answer.status == Some(401) {
            *self.admin.lock().await = None;
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

/// The agent that got a token. The planner hands over to the reader, and nobody else to anybody.
fn current_agent(issued: &Issued) -> String {
    let agents = &issued.token.agents;
    let agent = ["reader", "stranger"].into_iter().find(|agent| agents.contains(*agent));
    agent.unwrap_or("planner").to_owned()
}

fn unix_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
