//! The claims and the signature of a planned token.

use crate::{
    app::{Error, RequestError, Service, auth::issued_token::IssuedToken, exchange::ExchangeContext},
    domain::{
        exchange::{PlannedTask, TokenPlan},
        id::{TaskId, TokenId},
        settings::MAX_JWT_BYTES,
        status_list::StatusIndex,
        task::{Task, TaskState},
        token::{TaskContext, TaskRef, TaskTokenClaims},
    },
    ports::Outage,
};

/// A signed token that is not recorded yet, and has not left the process.
pub(super) struct SignedToken {
    pub(super) token: String,
    pub(super) plan: TokenPlan,
    /// The task, if it is new.
    pub(super) task: Option<Task>,
    pub(super) claims: TaskTokenClaims,
    pub(super) status_index: Option<StatusIndex>,
    /// The version of the key set that signed it.
    pub(super) key_version: u64,
}

impl Service {
    /// Allocates a status list index for a planned token, and signs it.
    #[tracing::instrument(target = "errand::trace", level = "trace", name = "sign", skip_all)]
    pub(super) async fn sign(&self, exchange: ExchangeContext<'_>, plan: TokenPlan) -> Result<SignedToken, Error> {
        let status_index = self.allocate_status_index(plan.kind, plan.expires).await?;
        let (task, claims) = self.build_claims(exchange, &plan, status_index);
        let payload = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let algorithm = self.select_signing_algorithm(plan.algorithm, exchange.cx);
        let key_version = self.inner.ports.signer.version();
        let token = self.inner.ports.signer.sign(algorithm, plan.kind.typ(), &payload, exchange.cx.now)?;
        // A token that this server could not read back as the same kind would be active nowhere,
        // and could not be revoked.
        if token.len() <= MAX_JWT_BYTES && IssuedToken::parse_payload(plan.kind.typ(), &payload).is_some() {
            Ok(SignedToken { token, plan, task, claims, status_index, key_version })
        } else {
            Err(RequestError::TokenTooLarge.into())
        }
    }

    /// Builds the claims of a planned token, and its task if that is new.
    fn build_claims(
        &self,
        exchange: ExchangeContext<'_>,
        plan: &TokenPlan,
        status_index: Option<StatusIndex>,
    ) -> (Option<Task>, TaskTokenClaims) {
        let ExchangeContext { caller, request, cx, .. } = exchange;
        let settings = self.settings();
        let (task, id, authority_hash, tctx) = match &plan.task {
            PlannedTask::Existing { id, authority_hash, context } => {
                (None, *id, authority_hash.clone(), context.clone())
            }
            PlannedTask::Open { purpose, authority, deadline } => {
                let id = TaskId::new(self.inner.ports.entropy.new_uuid());
                let task = Task {
                    id,
                    requester: plan.requester.clone(),
                    root_agent: plan.client.clone(),
                    purpose: purpose.clone(),
                    authority: authority.clone(),
                    state: TaskState::Active,
                    created_at: cx.now,
                    deadline: *deadline,
                    grant: plan.grant,
                    version: 0,
                    last_transition: None,
                    rev: caller.snapshot().seq,
                };
                let context = TaskContext { purpose: purpose.clone(), details: request.request_details.clone() };
                (Some(task), id, authority.hash(), context)
            }
        };
        let claims = TaskTokenClaims {
            iss: settings.issuer.clone(),
            aud: plan.audience.clone(),
            sub: plan.requester.subject.clone(),
            sub_iss: plan.requester.issuer.clone(),
            client_id: plan.client.clone(),
            iat: cx.now,
            exp: plan.expires,
            jti: TokenId::new(self.inner.ports.entropy.new_uuid()),
            txn: id,
            lineage: plan.lineage.clone(),
            rev: caller.snapshot().seq,
            scope: plan.scope.clone(),
            authorization_details: plan.authority.clone(),
            act: plan.chain.clone(),
            task: TaskRef { id, issuer: settings.issuer.clone(), authority_hash },
            tctx,
            rctx: request.request_context.clone().unwrap_or_default(),
            req_wl: plan.req_wl.clone(),
            may_act: plan.may_act.clone(),
            grant: plan.grant,
            break_glass: plan.break_glass,
            auth_time: plan.auth_context.auth_time,
            acr: plan.auth_context.acr.clone(),
            amr: plan.auth_context.amr.clone(),
            status: status_index.map(|index| index.to_claim(&settings.issuer)),
        };
        (task, claims)
    }
}
