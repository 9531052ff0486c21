//! Evaluation: may this call be made with this token, now? One request answers what introspection
//! and the constraints of the token say together.
//!
//! The token is verified as by introspection, at the snapshot at which the resource authenticated:
//! the same cache, the same standing, the same outage. Then the rule of the domain decides
//! ([`crate::domain::evaluation::decide`]).

mod audit;

use tokio::task::yield_now;

use crate::{
    app::{
        AuthError, AuthenticatedClient, Error, RequestContext, RequestError, Service,
        introspection::presented_token::{ActiveToken, PresentedToken},
    },
    domain::{
        admission::Family,
        evaluation::{BatchSemantic, Denied, EvaluationInput, Permitted, Question, decide},
        id::{ClientId, EvaluationId, TaskId, TokenId},
        registry::client::{Client, Resource},
        secret::Secret,
        token::TaskTokenClaims,
    },
};

/// Proof that an authenticated client is a resource. Only resources evaluate.
#[derive(Debug)]
pub struct ResourceCaller {
    client: AuthenticatedClient,
}

impl ResourceCaller {
    /// Creates the proof.
    ///
    /// # Errors
    ///
    /// Returns [`AuthError::ClientNotAllowed`] for another kind of client.
    pub fn new(client: AuthenticatedClient) -> Result<Self, Error> {
        let caller = Self { client };
        caller.resource()?;
        Ok(caller)
    }

    /// The resource's id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        self.client.id()
    }

    fn resource(&self) -> Result<&Resource, AuthError> {
        match self.client.client()? {
            Client::Resource(resource) => Ok(resource),
            Client::Agent(_) | Client::Admin(_) => Err(AuthError::ClientNotAllowed),
        }
    }
}

/// A request for a decision.
#[derive(Debug)]
pub struct EvaluationRequest {
    /// The token of the agent.
    pub token: Secret,
    /// What the agent requested with it.
    pub question: Question,
}

/// A decision.
#[derive(Debug)]
pub struct Evaluation {
    /// Its id, by which the audit trail and the resource's own log name it.
    pub id: EvaluationId,
    /// The task and the id of the token, if it is active for the resource.
    pub token: Option<(TaskId, TokenId)>,
    /// What is permitted, or why nothing is.
    pub decision: Result<Permitted, Denied>,
}

impl Evaluation {
    /// Returns whether the decision is yes.
    #[must_use]
    pub fn is_permitted(&self) -> bool {
        self.decision.is_ok()
    }
}

impl Service {
    /// Decides whether a call is permitted.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no decision, which is neither a yes nor a no.
    pub async fn evaluate(
        &self,
        caller: &ResourceCaller,
        request: &EvaluationRequest,
        cx: &RequestContext,
    ) -> Result<Evaluation, Error> {
        let resource = caller.resource()?;
        let presented = self.verify_presented(request.token.expose(), resource, caller.client.snapshot(), cx);
        self.evaluate_presented(caller, &presented, &request.question, cx).await
    }

    /// Decides about a batch, in order. A malformed request counts as denied. The answers end with
    /// the one that ends the batch by its semantic.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no decision about one of them. Then the batch has no decisions.
    /// Each evaluation counts as a request of the resource.
    pub async fn evaluate_batch(
        &self,
        caller: &ResourceCaller,
        requests: Vec<Result<EvaluationRequest, RequestError>>,
        semantic: BatchSemantic,
        cx: &RequestContext,
    ) -> Result<Vec<Result<Evaluation, RequestError>>, Error> {
        let resource = caller.resource()?;
        let more = u32::try_from(requests.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.charge_client(Family::Evaluation, &resource.id, more)?;
        let mut answers = Vec::with_capacity(requests.len());
        // The requests of a batch usually have the same token.
        let mut verified: Option<(Secret, PresentedToken)> = None;
        for request in requests {
            let answer = match request {
                Err(malformed) => Err(malformed),
                Ok(EvaluationRequest { token, question }) => {
                    let presented = match verified.take() {
                        Some((earlier, presented)) if earlier.expose() == token.expose() => presented,
                        _ => self.verify_presented(token.expose(), resource, caller.client.snapshot(), cx),
                    };
                    let evaluation = self.evaluate_presented(caller, &presented, &question, cx).await?;
                    verified = Some((token, presented));
                    Ok(evaluation)
                }
            };
            let is_permitted = answer.as_ref().is_ok_and(Evaluation::is_permitted);
            answers.push(answer);
            if semantic.ends_after(is_permitted) {
                break;
            }
            // Each may verify a signature. Other requests of the thread go on in between.
            yield_now().await;
        }
        Ok(answers)
    }

    async fn evaluate_presented(
        &self,
        caller: &ResourceCaller,
        presented: &PresentedToken,
        question: &Question,
        cx: &RequestContext,
    ) -> Result<Evaluation, Error> {
        let resource = caller.resource()?;
        let active = match presented {
            PresentedToken::Active(token) => Some(token),
            PresentedToken::Inactive(_) => None,
        };
        let claims = active.map(ActiveToken::claims);
        let names_tools = active.is_some_and(ActiveToken::names_tools);
        let registry = &caller.client.snapshot().registry;
        let evaluation = Evaluation {
            id: EvaluationId::new(self.inner.ports.entropy.new_uuid()),
            token: claims.map(|claims| (claims.txn, claims.jti)),
            // Within the authority, a policy engine will have the last word here: it narrows a
            // permitted question, and never permits a denied one.
            decision: decide(&EvaluationInput { question, claims, names_tools, resource, registry }),
        };
        let known = claims.or(match presented {
            PresentedToken::Inactive(claims) => claims.as_deref(),
            PresentedToken::Active(_) => None,
        });
        self.audit_evaluation(resource, known, question, &evaluation, cx).await?;
        Ok(evaluation)
    }
}

/// Whether the decision must be durable before the answer: a break-glass token permits a call only
/// if that is on record.
fn is_recorded_first(claims: &TaskTokenClaims, evaluation: &Evaluation) -> bool {
    claims.break_glass && evaluation.is_permitted()
}
