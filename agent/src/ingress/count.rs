//! Counts each request once, by how it was answered.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::{metrics::RequestLabels, shared::Shared};

/// The client left before it had an answer, as nginx named it.
const CLIENT_LEFT: u16 = 499;

/// Counts on drop.
#[derive(Debug)]
pub(super) struct Counted {
    shared: Arc<Shared>,
    route: &'static str,
    status: u16,
}

impl Counted {
    /// A request whose client has left, unless it is answered.
    pub(super) fn new(shared: &Arc<Shared>, route: &'static str) -> Self {
        Self { shared: Arc::clone(shared), route, status: CLIENT_LEFT }
    }

    /// It was answered.
    pub(super) fn answered(mut self, status: u16) {
        self.status = status;
    }

    /// The same for gRPC, with the HTTP status that stands for the code.
    pub(super) fn answered_grpc(self, headers: &http::HeaderMap) {
        let code = Status::from_header_map(headers).map_or(Code::Unknown, |status| status.code());
        self.answered(http_status(code));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let labels = RequestLabels { route: self.route, status: self.status };
        self.shared.metrics.requests.get_or_create(&labels).inc();
    }
}

/// As google.rpc.Code maps them.
const fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::Aborted | Code::AlreadyExists => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => CLIENT_LEFT,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Internal | Code::Unknown | Code::DataLoss => 500,
    }
}
