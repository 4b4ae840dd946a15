// big: answers with the token and 100 KiB behind it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char answer[100 << 10];

int main(void) {
	const char *query = getenv("QUERY_STRING");
	const char *token = query ? strstr(query, "t=") : NULL;
	int head = snprintf(answer, sizeof answer, "{\"token\":\"%.100s\",\"fill\":\"", token ? token + 2 : "");
	memset(answer + head, 'x', sizeof answer - head - 2);
	memcpy(answer + sizeof answer - 2, "\"}", 2);
	for (size_t sent = 0; sent < sizeof answer;) {
		ssize_t n = write(1, answer + sent, sizeof answer - sent);
		if (n < 0)
			return 1;
		sent += n;
	}
	return 0;
}
