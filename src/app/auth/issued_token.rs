//! Verification of tokens that Errand issued: signature, form and issuer.

use crate::{
    app::{Service, TokenError},
    domain::{
        id::KeyId,
        jose::jws::CompactJws,
        time::Timestamp,
        token::{ApiTokenClaims, TYP_ACCESS_TOKEN, TaskTokenClaims, TokenKind},
        uri::IssuerUrl,
    },
};

/// A token that Errand issued, with a valid signature. Its standing is not checked.
#[derive(Debug)]
pub(in crate::app) enum IssuedToken {
    Task(Box<TaskTokenClaims>, TokenKind),
    Api(Box<ApiTokenClaims>),
}

impl IssuedToken {
    /// Parses the payload of an issued token of this `typ`. A payload of one kind of token never
    /// parses as another kind.
    pub(in crate::app) fn parse_payload(typ: &str, payload: &[u8]) -> Option<Self> {
        if let Ok(claims) = TaskTokenClaims::read(payload) {
            let kind = claims.kind(typ)?;
            return Some(Self::Task(Box::new(claims), kind));
        }
        let claims = (typ == TYP_ACCESS_TOKEN).then(|| ApiTokenClaims::read(payload).ok())??;
        Some(Self::Api(Box::new(claims)))
    }

    /// Returns `iss`.
    fn issuer(&self) -> &IssuerUrl {
        match self {
            Self::Task(claims, _) => &claims.iss,
            Self::Api(claims) => &claims.iss,
        }
    }
}

impl Service {
    /// Verifies that Errand signed a token, and returns the token and the key. Its expiry is not
    /// checked.
    pub(in crate::app) fn verify_own_signature(
        &self,
        jws: CompactJws<'_>,
        now: Timestamp,
    ) -> Result<(IssuedToken, KeyId), TokenError> {
        let verified = self.inner.ports.signer.verify(jws, now).ok_or(TokenError::BadSignature)?;
        let token = IssuedToken::parse_payload(&verified.typ, &verified.payload).ok_or(TokenError::WrongTyp)?;
        if *token.issuer() != self.settings().issuer {
            return Err(TokenError::UntrustedIssuer);
        }
        Ok((token, verified.key))
    }
}
