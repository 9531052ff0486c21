//! An identity provider that signs with RS256 and publishes its keys on loopback.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use josekit::{
    jwk::Jwk,
    jws::{JwsSigner, RS256},
};
use serde_json::{Value, json};

use crate::idp::b64;

/// An RSA key with its `kid`.
#[derive(Clone)]
pub struct RsaKey {
    pub kid: String,
    jwk: Jwk,
}

/// Generating an RSA key takes long, so the tests share these.
static KEYS: LazyLock<[Jwk; 2]> = LazyLock::new(|| [(); 2].map(|()| Jwk::generate_rsa_key(2048).unwrap()));

impl RsaKey {
    /// Returns the first or the second shared key under this `kid`.
    pub fn shared(n: usize, kid: &str) -> Self {
        Self { kid: kid.to_owned(), jwk: KEYS[n].clone() }
    }

    /// Returns the public key with further members.
    pub fn public(&self, more: &Value) -> Value {
        let mut public = serde_json::to_value(self.jwk.to_public_key().unwrap()).unwrap();
        public["kid"] = json!(self.kid);
        public.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        public
    }

    /// Signs these claims. `header` adds members to the header, and `null` removes one.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut members = json!({"alg": "RS256", "kid": self.kid});
        for (name, value) in header.as_object().unwrap() {
            match value {
                Value::Null => drop(members.as_object_mut().unwrap().remove(name)),
                value => members[name] = value.clone(),
            }
        }
        let input = format!("{}.{}", b64(members.to_string()), b64(claims.to_string()));
        let signature = RS256.signer_from_jwk(&self.jwk).unwrap().sign(input.as_bytes()).unwrap();
        format!("{input}.{}", b64(signature))
    }
}

type Documents = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// A web server on loopback with documents that a test sets.
pub struct Provider {
    pub url: String,
    documents: Documents,
}

impl Provider {
    pub async fn start() -> Self {
        let documents = Documents::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(respond).with_state(Arc::clone(&documents));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, documents }
    }

    /// Sets the document at a path.
    pub fn set(&self, path: &str, document: impl Into<Vec<u8>>) {
        self.documents.lock().unwrap().insert(path.to_owned(), document.into());
    }

    /// Publishes these keys at a path.
    pub fn publish(&self, path: &str, keys: &[Value]) {
        self.set(path, json!({ "keys": keys }).to_string());
    }

    /// Answers a path with 404 again.
    pub fn remove(&self, path: &str) {
        self.documents.lock().unwrap().remove(path);
    }
}

async fn respond(State(documents): State<Documents>, request: Request) -> Response<axum::body::Body> {
    let document = documents.lock().unwrap().get(request.uri().path()).cloned();
    let status = if document.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Response::builder().status(status).body(document.unwrap_or_default().into()).unwrap()
}
