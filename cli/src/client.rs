//! The connection to the control plane, and its errors in words that help.

use std::{error::Error as StdError, time::Duration};

use tonic::{
    Code, ConnectError, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use trunkline_proto::admin::v1::admin_service_client::AdminServiceClient;

use crate::failure::Failure;

/// Longer than any admin call takes on a healthy control plane.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A control plane that does not accept by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest configuration, with room for its diff.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A control plane to call.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    url: String,
    channel: Channel,
}

impl ControlPlane {
    /// Prepares calls; the first one connects.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        let wrong = |problem: &str| {
            Failure::wrong_input(format!("--control-plane '{url}': {problem}; write http://host:port"))
        };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong("it is not a URL"))?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("TLS is not built yet")),
            _ => return Err(wrong("it has no scheme")),
        }
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).connect_lazy();
        Ok(Self { url: url.to_owned(), channel })
    }

    /// Calls one method.
    pub(crate) async fn call<M, T>(
        &self,
        message: M,
        method: impl AsyncFnOnce(&mut AdminServiceClient<Channel>, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut admin = AdminServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        match method(&mut admin, Request::new(message)).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.explain(&status)),
        }
    }

    fn explain(&self, status: &Status) -> Failure {
        if let Some(error) = connect_error(status) {
            return Failure::failed(format!(
                "can't reach the control plane at {}: {}\n\
                 Start one with `trunkline up`, or say where it is with --control-plane URL.",
                self.url,
                innermost(error)
            ));
        }
        let details = status.get_error_details();
        let mut lines = vec![match status.message() {
            "" => format!("the control plane at {} answered {:?}", self.url, status.code()),
            message => message.to_owned(),
        }];
        if let Some(bad) = details.bad_request() {
            let violations = bad.field_violations.iter();
            lines.extend(violations.map(|wrong| format!("  {}: {}", wrong.field, wrong.description)));
        }
        if let Some(info) = details.error_info() {
            lines.push(format!("(reason {})", info.reason));
        }
        let text = lines.join("\n");
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Failure::wrong_input(text),
            _ => Failure::failed(text),
        }
    }
}

fn connect_error(status: &Status) -> Option<&ConnectError> {
    let mut next = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn innermost<'a>(mut error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[tokio::test]
    async fn wrong_fields_are_listed_one_by_one_and_exit_with_2() {
        let control_plane = ControlPlane::at("http://127.0.0.1:1").unwrap();
        let mut details = ErrorDetails::with_error_info("INVALID_CONFIG", "trunkline", HashMap::new());
        details.add_bad_request_violation("providers[0].name", "is empty");
        details.add_bad_request_violation("virtual_models[0]", "has no tiers");
        let status = Status::with_error_details(Code::InvalidArgument, "not valid", details);
        let failure = control_plane.explain(&status);
        assert!(matches!(failure, Failure::WrongInput(_)));
        assert_eq!(
            failure.to_string(),
            "not valid\n  providers[0].name: is empty\n  virtual_models[0]: has no tiers\n\
             (reason INVALID_CONFIG)"
        );
    }

    #[tokio::test]
    async fn control_plane_that_is_not_there_says_how_to_start_one() {
        // Bound and dropped: nothing listens there now.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let control_plane = ControlPlane::at(&url).unwrap();
        let answer = control_plane
            .call(trunkline_proto::admin::v1::ExportConfigRequest {}, async |admin, request| {
                admin.export_config(request).await
            })
            .await;
        let failure = answer.unwrap_err();
        assert!(matches!(failure, Failure::Failed(_)));
        let text = failure.to_string();
        assert!(text.contains(&url) && text.contains("trunkline up"), "{text}");
    }

    #[tokio::test]
    async fn address_without_scheme_is_wrong_input() {
        for url in ["127.0.0.1:7600", "localhost", "https://h:1", ""] {
            let failure = ControlPlane::at(url).unwrap_err();
            assert!(matches!(failure, Failure::WrongInput(_)), "{url}");
            assert!(failure.to_string().contains("http://host:port"), "{url}: {failure}");
        }
    }
}
