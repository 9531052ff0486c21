//! Consent for an exchange: the recorded grants that apply, and the answer if consent is missing.

use crate::{
    app::{
        ConsentRequired, Error, RequestContext, Service, auth::client::IdentifiedClient,
        exchange::evidence::SubjectToken,
    },
    domain::{
        exchange::{Denial, ExchangeInput, authority_requiring_consent},
        grants::{Grant, MAX_TOTAL_GRANTS},
    },
};

impl Service {
    /// Returns the grants between the requester and the client. For a token that Errand issued: the
    /// grant that it rests on.
    ///
    /// A withdrawal after this read still ends the new token, because the token names the grant.
    pub(in crate::app) async fn find_grants(
        &self,
        subject: &SubjectToken,
        caller: &IdentifiedClient,
        cx: &RequestContext,
    ) -> Result<Vec<Grant>, Error> {
        let claims = match subject {
            SubjectToken::User(claims, ..) => claims,
            SubjectToken::Own(claims, _) => {
                let Some(id) = claims.grant else { return Ok(Vec::new()) };
                return Ok(self.store().find_grant(id).await?.into_iter().collect());
            }
        };
        Ok(self.store().list_live_grants(&claims.requester, caller.id(), cx.now, MAX_TOTAL_GRANTS).await?)
    }

    /// Returns the error of a denied exchange. If consent is missing, it has the authority to
    /// consent to, and the page.
    pub(in crate::app) fn denial_error(&self, denial: Denial, input: &ExchangeInput<'_>) -> Error {
        if denial != Denial::ConsentRequired {
            return denial.into();
        }
        let authority = authority_requiring_consent(input).unwrap_or_default();
        let uri = self.settings().consent_uri.clone();
        Error::ConsentRequired(Box::new(ConsentRequired { authority, uri }))
    }
}
