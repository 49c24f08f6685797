//! Each row of the error taxonomy, as a table.

use super::{
    BreakerCount::{self, Failure, Neutral, Poisonable, RatioOnly, Success},
    OutcomeClass as Class,
    QuarantineScope::{self, Account, Credential, Deployment},
    Remedy, *,
};

type Row = (u16, &'static str, Class, Remedy, BreakerCount, Option<QuarantineScope>);

/// `code|type|message`, an empty part being absent.
fn fields(text: &'static str) -> ErrorFields<'static> {
    let mut parts = text.split('|').map(|part| (!part.is_empty()).then_some(part));
    let mut next = || parts.next().flatten();
    ErrorFields { code: next(), kind: next(), message: next(), param: None }
}

fn check(rows: &[Row]) {
    for (status, text, class, remedy, breaker, scope) in rows {
        let found = classify(*status, &fields(text), None);
        let expect = (*class, *remedy, *breaker, *scope);
        assert_eq!(
            (found.class, found.remedy, found.breaker, found.quarantine_scope),
            expect,
            "{status} {text}"
        );
        assert_eq!(found.quarantine_scope.is_some(), found.remedy == Remedy::Quarantine, "{status} {text}");
    }
}

#[test]
fn request_at_fault() {
    let invalid = |status, text| (status, text, Class::InvalidRequest, Remedy::Return, Success, None);
    let context = |status, text| (status, text, Class::ContextLength, Remedy::LargerContext, Neutral, None);
    let filter = |status, text| (status, text, Class::ContentFilter, Remedy::ContentFilter, Neutral, None);
    check(&[
        invalid(400, "|invalid_request_error|bad temperature"),
        invalid(400, ""),
        invalid(405, ""),
        invalid(415, ""),
        invalid(418, "teapot"),
        invalid(422, ""),
        invalid(422, "|invalid_request_error|field required"),
        invalid(404, "|invalid_request_error|no such response"),
        invalid(400, "string_above_max_length|invalid_request_error|maximum context length"),
        (413, "|request_too_large|", Class::InvalidRequest, Remedy::Return, Neutral, None),
        context(413, "rate_limit_exceeded|tokens|Request too large for model"),
        context(400, "context_length_exceeded|invalid_request_error|x"),
        context(400, "|invalid_request_error|prompt is too long: 210000 tokens > 200000 maximum"),
        context(400, "400|BadRequestError|This model's maximum context length is 4096 tokens."),
        context(400, "400|exceed_context_size_error|the request exceeds the available context size"),
        context(400, "||Input is too long for requested model."),
        filter(400, "content_filter||"),
        filter(400, "content_policy_violation|invalid_request_error|"),
        filter(400, "ResponsibleAIPolicyViolation||"),
    ]);
}

#[test]
fn account_key_or_model_is_broken() {
    let quota = |status, text| (status, text, Class::Quota, Remedy::Quarantine, Neutral, Some(Account));
    let auth = |status, text| (status, text, Class::Auth, Remedy::Quarantine, Neutral, Some(Credential));
    let model =
        |status, text| (status, text, Class::ModelNotFound, Remedy::Quarantine, Neutral, Some(Deployment));
    let setup =
        |status, text, scope| (status, text, Class::Misconfigured, Remedy::Quarantine, Neutral, Some(scope));
    check(&[
        auth(401, "invalid_api_key|invalid_request_error|Incorrect API key provided"),
        auth(401, ""),
        auth(403, "|permission_error|"),
        quota(402, ""),
        quota(429, "insufficient_quota|insufficient_quota|You exceeded your current quota"),
        quota(429, "credit_balance_exhausted||"),
        quota(429, "organization_spend_limit_exceeded|insufficient_quota|"),
        quota(429, "project_spend_limit_exceeded||"),
        quota(429, "organization_usage_limit_exceeded||"),
        quota(429, "enforced_spend_limit_reached||"),
        quota(400, "|invalid_request_error|Your credit balance is too low to access the API"),
        quota(400, "ServiceQuotaExceededException||"),
        model(404, "model_not_found|invalid_request_error|"),
        model(404, "unknown_model||"),
        model(404, "DeploymentNotFound||"),
        model(404, "||model 'llama9' not found"),
        model(404, "404|NotFoundError|The model `x` does not exist."),
        setup(404, "", Deployment),
        setup(301, "", Account),
        setup(307, "", Account),
        setup(525, "", Account),
        setup(526, "", Account),
    ]);
}

#[test]
fn elsewhere_or_again() {
    let transient = |status, text, remedy, breaker| (status, text, Class::Transient, remedy, breaker, None);
    let unavailable = |status, text| (status, text, Class::Unavailable, Remedy::Other, Failure, None);
    let limited = |status, text| (status, text, Class::RateLimited, Remedy::OtherWithGate, Neutral, None);
    let overloaded = |status, text| (status, text, Class::Overloaded, Remedy::OtherWithGate, RatioOnly, None);
    check(&[
        (200, "", Class::Ok, Remedy::Done, Success, None),
        transient(408, "", Remedy::Other, RatioOnly),
        transient(409, "", Remedy::SameThenReturn, Neutral),
        transient(422, "||model hallucination", Remedy::SameThenOther, RatioOnly),
        transient(424, "", Remedy::SameThenOther, RatioOnly),
        limited(429, ""),
        limited(429, "rate_limit_exceeded|requests|"),
        limited(429, "slow_down||"),
        limited(429, "|RESOURCE_EXHAUSTED|"),
        limited(503, "429||"),
        limited(498, "capacity_exceeded||"),
        (500, "", Class::ServerError, Remedy::SameThenOther, Poisonable, None),
        unavailable(502, ""),
        unavailable(503, "||maximum pending requests exceeded"),
        unavailable(504, ""),
        unavailable(520, ""),
        unavailable(524, ""),
        (501, "", Class::ServerError, Remedy::Other, Failure, None),
        (599, "", Class::ServerError, Remedy::Other, Failure, None),
        overloaded(529, ""),
        overloaded(503, "server_is_overloaded|server_error|"),
        overloaded(503, "||The model is overloaded. Please try again later."),
        (600, "", Class::Malformed, Remedy::Other, Failure, None),
    ]);
}

#[test]
fn error_inside_of_a_200_counts_as_the_status_it_stands_for() {
    let class = |text, expect: Class| {
        assert_eq!(classify(200, &fields(text), None).class, expect, "{text}");
    };
    class("400||", Class::InvalidRequest);
    class("401|BadRequestError|", Class::Auth);
    class("429||", Class::RateLimited);
    class("503||", Class::Unavailable);
    class("rate_limit_exceeded||", Class::RateLimited);
    class("insufficient_quota|insufficient_quota|", Class::Quota);
    class("|invalid_request_error|", Class::InvalidRequest);
    class("|overloaded_error|", Class::Overloaded);
    class("|authentication_error|", Class::Auth);
    class("context_length_exceeded|invalid_request_error|", Class::ContextLength);
    class("|server_error|", Class::ServerError);
    class("||something broke", Class::ServerError);
    class("17||", Class::ServerError);
}

#[test]
fn quoted_prompt_does_not_decide() {
    let far = "x".repeat(300) + " maximum context length";
    let error = ErrorFields { message: Some(&far), ..ErrorFields::default() };
    assert_eq!(classify(400, &error, None).class, Class::InvalidRequest);
    let specific = fields("invalid_value||429 maximum context length, credit balance is too low");
    assert_eq!(classify(400, &specific, None).class, Class::InvalidRequest);
}

#[test]
fn missing_model_may_be_named_by_param() {
    let error =
        ErrorFields { param: Some("model"), message: Some("`x` does not exist"), ..ErrorFields::default() };
    assert_eq!(classify(404, &error, None).class, Class::ModelNotFound);
}

#[test]
fn hints_make_gates() {
    let gate = |status, text, hint: Option<u64>| {
        let found = classify(status, &fields(text), hint.map(Duration::from_secs));
        (found.remedy, found.gate.map(|gate| gate.for_how_long.as_secs()))
    };
    assert_eq!(gate(429, "", Some(7)), (Remedy::OtherWithGate, Some(7)));
    assert_eq!(gate(429, "", Some(9_999)), (Remedy::OtherWithGate, Some(300)));
    assert_eq!(gate(429, "", None), (Remedy::OtherWithGate, Some(1)));
    assert_eq!(gate(529, "", None), (Remedy::OtherWithGate, Some(5)));
    assert_eq!(gate(503, "", Some(3)), (Remedy::OtherWithGate, Some(3)));
    assert_eq!(gate(503, "", None), (Remedy::Other, None));
    assert_eq!(gate(500, "", Some(3)), (Remedy::SameThenOther, None));
    assert_eq!(gate(429, "insufficient_quota||", Some(3)), (Remedy::Quarantine, None));
}

#[test]
fn transport_body_and_silence() {
    let verdict = |found: Classified| (found.class, found.remedy, found.breaker);
    let transport = |fault| verdict(classify_transport(fault));
    assert_eq!(transport(TransportFault::Unwritten), (Class::Connect, Remedy::Replay, Neutral));
    assert_eq!(transport(TransportFault::Connect), (Class::Connect, Remedy::Other, Failure));
    assert_eq!(transport(TransportFault::ConnectTimeout), (Class::Connect, Remedy::Other, Failure));
    assert_eq!(
        transport(TransportFault::AddressRefused),
        (Class::Misconfigured, Remedy::Quarantine, Neutral)
    );
    assert_eq!(transport(TransportFault::Reset), (Class::Reset, Remedy::Other, Failure));
    assert_eq!(transport(TransportFault::AttemptTimeout), (Class::Timeout, Remedy::Other, Failure));
    assert_eq!(transport(TransportFault::ResetAfterContent), (Class::MidStream, Remedy::EndInBand, Failure));
    assert_eq!(transport(TransportFault::Cancelled), (Class::Cancelled, Remedy::Return, Neutral));
    let body = |fault| verdict(classify_body(fault));
    assert_eq!(body(BodyFault::Html), (Class::Malformed, Remedy::Other, Failure));
    assert_eq!(body(BodyFault::NotEventStream), (Class::Malformed, Remedy::Other, RatioOnly));
    assert_eq!(body(BodyFault::Empty), (Class::Empty, Remedy::Other, Poisonable));
    assert_eq!(body(BodyFault::Truncated), (Class::Reset, Remedy::Other, Failure));
    assert_eq!(body(BodyFault::TruncatedAfterContent), (Class::MidStream, Remedy::EndInBand, Failure));
    assert_eq!(classify_silence(Silence::Stream).breaker, Failure);
    assert_eq!(classify_silence(Silence::Unary).breaker, RatioOnly);
}

#[test]
fn errors_after_content() {
    let breaker = |text| {
        let found = classify_mid_stream(&fields(text));
        assert_eq!((found.class, found.remedy), (Class::MidStream, Remedy::EndInBand));
        found.breaker
    };
    assert_eq!(breaker("400||"), Neutral);
    assert_eq!(breaker("rate_limit_exceeded||"), Neutral);
    assert_eq!(breaker("500||"), Failure);
    assert_eq!(breaker("|overloaded_error|"), Failure);
    assert_eq!(breaker(""), Failure);
}

#[test]
fn rate_limit_fails_a_probe_only() {
    let limited = classify(429, &fields(""), None);
    assert!(limited.fails_probe() && limited.breaker == Neutral);
    assert!(classify(503, &fields(""), None).fails_probe());
    assert!(!classify(200, &fields(""), None).fails_probe());
    assert!(!classify(400, &fields(""), None).fails_probe());
}

#[test]
fn names_are_unique() {
    let names: std::collections::BTreeSet<_> = Class::ALL.iter().map(|class| class.name()).collect();
    assert_eq!(names.len(), Class::ALL.len());
}
