//! User tokens that were ended as evidence: no exchange accepts them any more.
//!
//! Errand did not issue these tokens, so it can't revoke them. It can refuse them. A user token is
//! named by its issuer and `jti`, or by its signed text if it has no `jti`; a session is named by
//! the issuer and `sid`. Names are kept as digests.

use std::{fmt, str::FromStr};

use ring::digest::{SHA256, digest};
use thiserror::Error;

use crate::domain::{
    decode_base64url, encode_base64url, id::ClientId, requester::Requester, time::Timestamp, uri::IssuerUrl,
};

/// The digest that names a user token or a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EvidenceDigest(String);

impl EvidenceDigest {
    /// Names a token by its issuer and `jti`.
    #[must_use]
    pub fn of_token_id(issuer: &IssuerUrl, jti: &str) -> Self {
        Self::of("jti", issuer, jti.as_bytes())
    }

    /// Names a token by its header and claims as they were signed. The signature does not count: it
    /// may have several valid forms.
    #[must_use]
    pub fn of_signed_text(issuer: &IssuerUrl, signing_input: &[u8]) -> Self {
        Self::of("text", issuer, signing_input)
    }

    /// Names a session by its issuer and `sid`.
    #[must_use]
    pub fn of_session(issuer: &IssuerUrl, sid: &str) -> Self {
        Self::of("sid", issuer, sid.as_bytes())
    }

    fn of(kind: &str, issuer: &IssuerUrl, name: &[u8]) -> Self {
        // An issuer URL contains no space, so the parts are unambiguous.
        let text = [format!("{kind} {issuer} ").as_bytes(), name].concat();
        Self(encode_base64url(digest(&SHA256, &text).as_ref()))
    }

    /// Returns the digest in base64url.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EvidenceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a SHA-256 digest in base64url")]
pub struct DigestError;

impl FromStr for EvidenceDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let is_digest = decode_base64url(text).is_some_and(|bytes| bytes.len() == 32);
        if is_digest { Ok(Self(text.to_owned())) } else { Err(DigestError) }
    }
}

/// A user token as evidence: its names, and its times by the clock of its issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedEvidence {
    /// The token.
    pub token: EvidenceDigest,
    /// The session of its sign-in, if the token names it.
    pub session: Option<EvidenceDigest>,
    /// `iat`; the epoch if the token has none.
    pub issued: Timestamp,
    /// `exp`
    pub expires: Timestamp,
}

/// What is ended as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndedEvidence {
    /// One token, for one agent: a task that the agent opened or joined with it was ended.
    ForAgent(ClientId, EvidenceDigest),
    /// One token, for every agent.
    Token(EvidenceDigest),
    /// Every token of a session, whenever it was issued.
    Session(EvidenceDigest),
    /// Every token of a requester that was issued before the entry.
    Requester(Box<Requester>),
}

impl EndedEvidence {
    /// Returns the key of the log entry.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::ForAgent(agent, token) => format!("agent {agent} {token}"),
            Self::Token(token) => format!("token {token}"),
            Self::Session(session) => format!("session {session}"),
            Self::Requester(requester) => format!("requester {} {}", requester.issuer, requester.subject),
        }
    }

    /// Parses the key of a log entry.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (kind, name) = key.split_once(' ')?;
        match kind {
            "agent" => {
                let (agent, token) = name.split_once(' ')?;
                Some(Self::ForAgent(agent.parse().ok()?, token.parse().ok()?))
            }
            "token" => Some(Self::Token(name.parse().ok()?)),
            "session" => Some(Self::Session(name.parse().ok()?)),
            "requester" => {
                let (issuer, subject) = name.split_once(' ')?;
                let requester = Requester { issuer: issuer.parse().ok()?, subject: subject.parse().ok()? };
                Some(Self::Requester(Box::new(requester)))
            }
            _ => None,
        }
    }
}

/// Why a user token is no longer evidence. Clients receive these texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EvidenceEnd {
    /// A task that the agent opened or joined with it was ended.
    #[error("a task of this agent with this token was ended; the requester has to sign in again")]
    Task,
    /// The requester was ended after it was issued.
    #[error(
        "an admin ended everything of the requester after the token was issued; the requester has to sign in again"
    )]
    Requester,
    /// The session of its sign-in was ended.
    #[error("an admin ended the session of the token (`sid`); the requester has to sign in again, in a new session")]
    Session,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(url: &str) -> IssuerUrl {
        url.parse().unwrap()
    }

    #[test]
    fn evidence_is_named_by_issuer_kind_and_text() {
        let (one, two) = (issuer("https://login.example.com"), issuer("https://login.example.org"));
        // The digest was computed with sha256sum and basenc.
        assert_eq!(EvidenceDigest::of_token_id(&one, "x").as_str(), "An5XUU_IV4AUPHVqsdwM8SKiXhCNvEzXcYG0gx0EZ1A");
        let names = [
            EvidenceDigest::of_token_id(&one, "x"),
            EvidenceDigest::of_token_id(&one, "X"),
            EvidenceDigest::of_token_id(&two, "x"),
            EvidenceDigest::of_session(&one, "x"),
            EvidenceDigest::of_signed_text(&one, b"x"),
        ];
        for (n, name) in names.iter().enumerate() {
            assert_eq!(name.as_str().parse().as_ref(), Ok(name));
            assert!(names.iter().take(n).all(|other| other != name), "{n}");
        }
        for text in ["", "x", "DDD", "jti digest"] {
            assert_eq!(text.parse::<EvidenceDigest>(), Err(DigestError), "{text}");
        }
    }

    #[test]
    fn ended_evidence_round_trips_through_its_key() {
        let (login, name) =
            (issuer("https://login.example.com"), EvidenceDigest::of_token_id(&issuer("https://a.example"), "x"));
        let alice = Requester { issuer: login, subject: "alice in chains".parse().unwrap() };
        for ended in [
            EndedEvidence::ForAgent("planner".parse().unwrap(), name.clone()),
            EndedEvidence::Token(name.clone()),
            EndedEvidence::Session(name.clone()),
            EndedEvidence::Requester(Box::new(alice)),
        ] {
            assert_eq!(EndedEvidence::parse(&ended.key()), Some(ended));
        }
        for key in ["", "agent", "agent planner", "token x", "session", "requester alice", "sid x", "agent planner x"] {
            assert_eq!(EndedEvidence::parse(key), None, "{key}");
        }
    }
}
