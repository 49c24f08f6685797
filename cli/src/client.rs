//! The connection to the control plane, and its errors in words that help.

use std::{error::Error as StdError, time::Duration};

use tonic::{
    Code, ConnectError, Request, Response, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Uri},
};
use tonic_types::StatusExt as _;
use trunkline_proto::admin::v1::admin_service_client::AdminServiceClient;
use trunkline_transport::{
    bearer::{Bearer, BearerFile},
    client::{Trust, endpoint, keeps_secrets},
};

use crate::{args::Connection, failure::Failure};

/// Longer than any admin call takes on a healthy control plane. Of a stream it is the
/// time until it begins.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A control plane that does not accept by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A control plane that vanished without a word is noticed after two of these.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);

/// The largest configuration, with room for its diff.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The admin API, with the operator's token on each call.
pub(crate) type Admin = AdminServiceClient<InterceptedService<Channel, Bearer>>;

/// A control plane to call.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    url: String,
    channel: Channel,
    bearer: Bearer,
}

impl ControlPlane {
    /// Prepares calls to the one that the operator named; the first one connects.
    pub(crate) fn of(connection: &Connection) -> Result<Self, Failure> {
        let Connection { control_plane: url, token_file, ca_file } = connection;
        let wrong = |flag: &str, problem: String| Failure::wrong_input(format!("{flag}: {problem}"));
        let trust = Trust::file_or_public(ca_file.as_deref())
            .map_err(|error| wrong("--ca-file", error.to_string()))?;
        let bearer = match token_file {
            None => Bearer::none(),
            Some(path) => {
                BearerFile::load(path).map_err(|error| wrong("--token-file", error.to_string()))?.bearer()
            }
        };
        Self::prepare(url, &trust, bearer)
    }

    /// The one in this process, which asks for no token.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        Self::prepare(url, &Trust::public(), Bearer::none())
    }

    fn prepare(url: &str, trust: &Trust, bearer: Bearer) -> Result<Self, Failure> {
        let endpoint = endpoint(url, trust)
            .map_err(|error| Failure::wrong_input(format!("--control-plane: {error}")))?;
        may_carry(endpoint.uri(), &bearer)?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .connect_lazy();
        Ok(Self { url: url.to_owned(), channel, bearer })
    }

    /// Calls one method.
    pub(crate) async fn call<M, T>(
        &self,
        message: M,
        method: impl AsyncFnOnce(&mut Admin, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.try_call(message, method).await.map_err(|status| self.explain(&status))
    }

    /// The same for who looks at the status.
    pub(crate) async fn try_call<M, T>(
        &self,
        message: M,
        method: impl AsyncFnOnce(&mut Admin, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut admin = AdminServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(method(&mut admin, Request::new(message)).await?.into_inner())
    }

    /// An error in words that help.
    pub(crate) fn explain(&self, status: &Status) -> Failure {
        if let Some(error) = connect_error(status) {
            let error = innermost(error).to_string();
            let help = if error.contains("UnknownIssuer") {
                "If that is its own certificate authority, name it with --ca-file FILE."
            } else {
                "Start one with `trunkline up`, or say where it is with --control-plane URL."
            };
            return Failure::failed(format!(
                "can't reach the control plane at {}: {error}\n{help}",
                self.url
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
        if status.code() == Code::Unauthenticated {
            lines.push("Say who you are with --token-file FILE, or TRUNKLINE_TOKEN_FILE.".to_owned());
        }
        let text = lines.join("\n");
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Failure::wrong_input(text),
            _ => Failure::failed(text),
        }
    }
}

/// A token is not sent where others on the way could read it.
pub(crate) fn may_carry(url: &Uri, bearer: &Bearer) -> Result<(), Failure> {
    if bearer.is_some() && !keeps_secrets(url) {
        return Err(Failure::wrong_input(format!(
            "--token-file: the token would travel in the clear to {url}; use https://"
        )));
    }
    Ok(())
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
        for url in ["127.0.0.1:7600", "localhost", "ftp://h:1", ""] {
            let failure = ControlPlane::at(url).unwrap_err();
            assert!(matches!(failure, Failure::WrongInput(_)), "{url}");
            assert!(failure.to_string().contains("http://host:port"), "{url}: {failure}");
        }
    }

    #[tokio::test]
    async fn token_is_not_sent_in_the_clear_and_files_that_are_wrong_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "alice secret-of-alice-1234\n").unwrap();
        let with = |url: &str, token_file: Option<&std::path::Path>, ca_file: Option<&std::path::Path>| {
            ControlPlane::of(&Connection {
                control_plane: url.to_owned(),
                token_file: token_file.map(ToOwned::to_owned),
                ca_file: ca_file.map(ToOwned::to_owned),
            })
        };
        with("http://127.0.0.1:1", Some(&file), None).unwrap();
        with("https://control-plane:1", Some(&file), None).unwrap();

        let check = |refused: Result<ControlPlane, Failure>, text: &str| {
            let failure = refused.unwrap_err();
            assert!(matches!(failure, Failure::WrongInput(_)), "{failure}");
            assert!(failure.to_string().contains(text), "{failure}");
            assert!(!failure.to_string().contains("secret-of"), "{failure}");
        };
        check(with("http://control-plane:1", Some(&file), None), "use https://");
        check(with("https://h:1", Some(&directory.path().join("none")), None), "--token-file: ");
        check(with("https://h:1", None, Some(&file)), "--ca-file: ");
    }

    #[tokio::test]
    async fn who_is_not_known_learns_how_to_say_it() {
        let control_plane = ControlPlane::at("http://127.0.0.1:1").unwrap();
        let failure = control_plane.explain(&Status::unauthenticated("no token"));
        assert!(failure.to_string().contains("--token-file"), "{failure}");
    }
}
