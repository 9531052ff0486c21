//! `errand token`: the client side, for a terminal. What curl does, readable.

use std::{fs, io::Read, path::Path, time::Duration};

use errand::{
    adapters::{
        client_assertion,
        system::{OsEntropy, SystemClock},
    },
    domain::{jose::jws::UnverifiedJws, secret::Secret},
    ports::{Clock, Entropy},
};
use serde_json::Value;

use super::{CliError, ClientArgs, ExchangeArgs, operator::block_on, print_line};

/// RFC 8693 §2.1
const TOKEN_EXCHANGE_GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 8693 §3
const TOKEN_TYPE_PREFIX: &str = "urn:ietf:params:oauth:token-type:";
/// RFC 7523 §2.2
const JWT_BEARER_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long the server may take: as long as it gives itself.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// More than any answer has.
const MAX_BODY_BYTES: usize = 1024 * 1024;

type FormFields = Vec<(&'static str, String)>;

pub(super) fn exchange(ask: &ExchangeArgs) -> Result<(), CliError> {
    let subject = read_secret(&ask.subject_token_file)?;
    let mut form: FormFields = vec![
        ("grant_type", TOKEN_EXCHANGE_GRANT_TYPE.to_owned()),
        ("subject_token", subject.expose().to_owned()),
        ("subject_token_type", format!("{TOKEN_TYPE_PREFIX}{}", ask.subject_token_type)),
    ];
    let optional = [
        ("resource", ask.resource.clone()),
        ("audience", ask.audience.clone()),
        ("scope", ask.scope.clone()),
        ("authorization_details", ask.authorization_details.clone()),
        ("purpose", ask.purpose.clone()),
        ("task_deadline", ask.task_deadline.map(|seconds| seconds.to_string())),
        ("request_details", ask.request_details.clone()),
        ("request_context", ask.request_context.clone()),
        ("task_id", ask.task.clone()),
        ("requested_actor", ask.to.clone()),
        ("expires_in", ask.expires_in.map(|seconds| seconds.to_string())),
    ];
    form.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))));
    if ask.txn {
        form.push(("requested_token_type", format!("{TOKEN_TYPE_PREFIX}txn_token")));
    }
    let answer = post(&ask.client_args, "/oauth2/token", form)?;
    let token = answer.get("access_token").and_then(Value::as_str).ok_or(CliError::new("the answer has no token"))?;
    if ask.bare {
        return print_line(token);
    }
    print_claims(token)?;
    print_line(format!("\n{token}"))
}

pub(super) fn introspect(who: &ClientArgs, token_file: &Path) -> Result<(), CliError> {
    let token = read_secret(token_file)?;
    let answer = post(who, "/oauth2/introspect", vec![("token", token.expose().to_owned())])?;
    print_line(serde_json::to_string_pretty(&answer)?)
}

pub(super) fn revoke(who: &ClientArgs, token_file: &Path) -> Result<(), CliError> {
    let token = read_secret(token_file)?;
    post(who, "/oauth2/revoke", vec![("token", token.expose().to_owned())])?;
    print_line("revoked, with all that was derived from it")
}

/// Sends a form as this client, and takes a JSON answer; an OAuth error becomes the fault's text.
fn post(who: &ClientArgs, path: &str, mut form: FormFields) -> Result<Value, CliError> {
    // Only one process-wide provider is there to be installed; a second call finds it in place.
    let _: Result<(), _> = rustls::crypto::ring::default_provider().install_default();
    // An issuer has no slash at its end, and what an assertion is for must be the issuer to the letter.
    let issuer = who.server.trim_end_matches('/');
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(REQUEST_TIMEOUT).build()?;
    let mut request = client.post(format!("{issuer}{path}"));
    match (&who.secret_file, &who.key_file) {
        (Some(file), _) => {
            let secret = read_secret(file)?;
            request = request.basic_auth(form_encode(&who.client), Some(form_encode(secret.expose())));
        }
        (None, Some(file)) => {
            let (now, id) = (SystemClock::new().now(), OsEntropy::new()?.new_uuid());
            let made = client_assertion::sign(&read_secret(file)?, &who.client, issuer, now, id)?;
            form.push(("client_assertion_type", JWT_BEARER_ASSERTION_TYPE.to_owned()));
            form.push(("client_assertion", made.expose().to_owned()));
        }
        (None, None) => return Err(CliError::new("--secret-file or --key-file is needed")),
    }
    let mut answer = Value::Null;
    block_on(async {
        let response = request.form(&form).send().await?;
        let status = response.status();
        answer = serde_json::from_slice(&read_body(response).await?).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(());
        }
        let text = |name| answer.get(name).and_then(Value::as_str).unwrap_or("no reason given");
        Err(CliError::new(format!("{status}: {}: {}", text("error"), text("error_description"))))
    })?;
    Ok(answer)
}

/// The body, as far as it is one of ours.
async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        body.extend_from_slice(&part);
        if body.len() > MAX_BODY_BYTES {
            return Err(CliError::new("the answer is over 1 MiB: is this an Errand?"));
        }
    }
    Ok(body)
}

/// RFC 6749 §2.3.1: both halves of HTTP Basic are form-encoded.
fn form_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The claims of a token that the server has just given us over its own connection: shown, not judged.
fn print_claims(token: &str) -> Result<(), CliError> {
    let claims = UnverifiedJws::parse(token)?.into_payload();
    print_line(serde_json::to_string_pretty(&claims)?)
}

/// Reads a secret or a token from a file or standard input; the line break at its end is not part of it.
fn read_secret(file: &Path) -> Result<Secret, CliError> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)?;
    } else {
        text = fs::read_to_string(file).map_err(|e| CliError::new(format!("{}: {e}", file.display())))?;
    }
    Ok(Secret::new(text.trim().to_owned()))
}
