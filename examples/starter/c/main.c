/* {{name}} is a function: the request's body is its standard input, and what it
 * prints is the response. What it writes to standard error is in its log:
 * baton logs {{name}} */
#include <stdio.h>
#include <stdlib.h>

int main(void) {
	static char buffer[65536];
	size_t n, bytes = 0;
	while ((n = fread(buffer, 1, sizeof buffer, stdin)) > 0)
		bytes += n;
	if (ferror(stdin)) {
		perror("read the body");
		return 1; /* answered with 502 */
	}
	const char *method = getenv("REQUEST_METHOD");
	/* Output that starts with { or [ is sent as JSON. A header block in front of
	 * it, as in CGI, sets the status and fields. */
	printf("{\"message\":\"Hello from C\",\"method\":\"%s\",\"bytes\":%zu}\n", method ? method : "", bytes);
	return 0;
}
