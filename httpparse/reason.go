package httpparse

// Outcome says how far a parser came.
type Outcome uint8

const (
	Incomplete Outcome = iota // a proper prefix: call again with the same bytes and more
	Complete
	Invalid // a Reason says which rule is broken
)

// String returns the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case Incomplete:
		return "incomplete"
	case Complete:
		return "complete"
	case Invalid:
		return "invalid"
	}
	return "unknown"
}

// Reason says which rule the client's bytes break. The zero value means
// accepted. Each reason has the status to answer before closing.
type Reason uint8

const (
	ReasonNone Reason = iota

	// The request line: RFC 9112 sections 2.3 and 3.
	ReasonBadMethod
	ReasonConnect
	ReasonBadRequestLine
	ReasonRequestLineTooLong
	ReasonBadTarget
	ReasonBadPercentEncoding
	ReasonFragmentInTarget
	ReasonAsteriskForm
	ReasonBadScheme
	ReasonMisdirected
	ReasonBadAuthority
	ReasonBadVersion
	ReasonUnsupportedVersion

	// Lines and fields: RFC 9112 sections 2.2 and 5.
	ReasonBareLF
	ReasonBareCR
	ReasonObsFold
	ReasonSpaceBeforeColon
	ReasonMissingColon
	ReasonBadFieldName
	ReasonBadFieldValue
	ReasonTooManyFields
	ReasonHeadTooLarge

	// What fields say: RFC 9110 sections 7.2, 7.6.1, 8.6 and 10.1.1, RFC 9112
	// sections 3.2, 6.1 and 6.3.
	ReasonMissingHost
	ReasonRepeatedHost
	ReasonBadHost
	ReasonBadContentLength
	ReasonRepeatedContentLength
	ReasonBadTransferEncoding
	ReasonRepeatedTransferEncoding
	ReasonUnsupportedTransferEncoding
	ReasonTransferEncodingHTTP10
	ReasonLengthAndTransferEncoding
	ReasonBadConnection
	ReasonUnsupportedExpectation

	// The chunked coding: RFC 9112 section 7.1.
	ReasonBadChunkSize
	ReasonChunkTooLarge
	ReasonBadChunkExtension
	ReasonChunkLineTooLong
	ReasonChunkOverhead
	ReasonBadChunkEnd
	ReasonTrailerTooLarge

	// Never given by this package's parsers: what the connection refuses on its
	// own, named here so that each refusal has one table and one counter.
	ReasonHeadTimeout
	ReasonBodyTimeout
	ReasonBodyTooLarge

	// ReasonCount is the number of reasons, ReasonNone included: the size of an
	// array of counters.
	ReasonCount
)

// reasons holds what each Reason answers: the status, the name in JSON bodies
// and metrics, and a sentence for a person.
var reasons = [ReasonCount]struct {
	status     int
	name, text string
}{
	ReasonNone: {200, "accepted", "the request is accepted"},

	ReasonBadMethod:          {400, "bad_method", "the method is not a token"},
	ReasonConnect:            {501, "connect_unsupported", "CONNECT is not supported"},
	ReasonBadRequestLine:     {400, "bad_request_line", "the request line is not method, target and version, one space apart"},
	ReasonRequestLineTooLong: {414, "request_line_too_long", "the request line is too long"},
	ReasonBadTarget:          {400, "bad_target", "the request target has a form or a character that is not allowed"},
	ReasonBadPercentEncoding: {400, "bad_percent_encoding", "a percent sign in the request target is not followed by two hexadecimal digits"},
	ReasonFragmentInTarget:   {400, "fragment_in_target", "a request target has no fragment"},
	ReasonAsteriskForm:       {400, "asterisk_form", "the target * belongs to OPTIONS alone"},
	ReasonBadScheme:          {400, "bad_scheme", "the scheme of the request target is neither http nor https"},
	ReasonMisdirected:        {421, "misdirected", "an https target is asked for on a connection without TLS"},
	ReasonBadAuthority:       {400, "bad_authority", "the authority of the request target is not a host with an optional port"},
	ReasonBadVersion:         {400, "bad_version", "the protocol version is malformed"},
	ReasonUnsupportedVersion: {505, "unsupported_version", "only HTTP/1.0 and HTTP/1.1 are spoken here"},

	ReasonBareLF:           {400, "bare_lf", "a line ends with LF alone"},
	ReasonBareCR:           {400, "bare_cr", "a CR is not followed by LF"},
	ReasonObsFold:          {400, "obs_fold", "a line starts with white space"},
	ReasonSpaceBeforeColon: {400, "space_before_colon", "white space stands between a field name and its colon"},
	ReasonMissingColon:     {400, "missing_colon", "a field line has no colon"},
	ReasonBadFieldName:     {400, "bad_field_name", "a field name is not a token"},
	ReasonBadFieldValue:    {400, "bad_field_value", "a field value has a control character"},
	ReasonTooManyFields:    {431, "too_many_fields", "there are too many fields"},
	ReasonHeadTooLarge:     {431, "head_too_large", "the head of the request is too large"},

	ReasonMissingHost:                 {400, "missing_host", "an HTTP/1.1 request needs a Host field"},
	ReasonRepeatedHost:                {400, "repeated_host", "there is more than one Host field"},
	ReasonBadHost:                     {400, "bad_host", "the Host field is not a host with an optional port"},
	ReasonBadContentLength:            {400, "bad_content_length", "the Content-Length field is not one decimal number"},
	ReasonRepeatedContentLength:       {400, "repeated_content_length", "there is more than one Content-Length"},
	ReasonBadTransferEncoding:         {400, "bad_transfer_encoding", "the Transfer-Encoding field is malformed, or chunked is not its last coding, once"},
	ReasonRepeatedTransferEncoding:    {400, "repeated_transfer_encoding", "there is more than one Transfer-Encoding field"},
	ReasonUnsupportedTransferEncoding: {501, "unsupported_transfer_encoding", "no transfer coding but chunked is supported"},
	ReasonTransferEncodingHTTP10:      {400, "transfer_encoding_in_http_1_0", "HTTP/1.0 has no Transfer-Encoding"},
	ReasonLengthAndTransferEncoding:   {400, "length_and_transfer_encoding", "Content-Length and Transfer-Encoding exclude each other"},
	ReasonBadConnection:               {400, "bad_connection", "the Connection field is not a list of tokens"},
	ReasonUnsupportedExpectation:      {417, "unsupported_expectation", "no expectation but 100-continue is supported"},

	ReasonBadChunkSize:      {400, "bad_chunk_size", "a chunk size is not a hexadecimal number"},
	ReasonChunkTooLarge:     {413, "chunk_too_large", "a chunk size is too large"},
	ReasonBadChunkExtension: {400, "bad_chunk_extension", "a chunk extension is malformed"},
	ReasonChunkLineTooLong:  {400, "chunk_line_too_long", "the line of a chunk size is too long"},
	ReasonChunkOverhead:     {400, "chunk_overhead", "the chunks carry far more framing than data"},
	ReasonBadChunkEnd:       {400, "bad_chunk_end", "the data of a chunk is not followed by CRLF"},
	ReasonTrailerTooLarge:   {431, "trailer_too_large", "the trailer section is too large"},

	ReasonHeadTimeout:  {408, "head_timeout", "the head of the request did not arrive in time"},
	ReasonBodyTimeout:  {408, "body_timeout", "the body of the request did not arrive in time"},
	ReasonBodyTooLarge: {413, "body_too_large", "the body of the request is too large"},
}

// Status returns the HTTP status that answers r, 200 for ReasonNone.
func (r Reason) Status() int { return reasons[r].status }

// String returns r's name for JSON bodies and metrics: snake case, stable, and
// free of bytes that JSON would escape.
func (r Reason) String() string { return reasons[r].name }

// Text returns a sentence about r for a person, free of bytes that JSON would
// escape.
func (r Reason) Text() string { return reasons[r].text }
