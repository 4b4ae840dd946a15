// {{name}} is a function: the request's body is its standard input, and what it
// prints is the response. What it writes to standard error is in its log:
// baton logs {{name}}
#include <cstdio>
#include <cstdlib>
#include <string>

int main() {
	std::string body;
	static char buffer[65536];
	for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;)
		body.append(buffer, n);
	if (std::ferror(stdin)) {
		std::perror("read the body");
		return 1; // answered with 502
	}
	const char *method = std::getenv("REQUEST_METHOD");
	// Output that starts with { or [ is sent as JSON. A header block in front of
	// it, as in CGI, sets the status and fields.
	std::printf("{\"message\":\"Hello from C++\",\"method\":\"%s\",\"bytes\":%zu}\n", method ? method : "", body.size());
	return 0;
}
