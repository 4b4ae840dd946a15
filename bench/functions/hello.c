// hello: answers with the token of its query.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
	const char *query = getenv("QUERY_STRING");
	const char *token = query ? strstr(query, "t=") : NULL;
	printf("{\"token\":\"%s\"}\n", token ? token + 2 : "");
	return 0;
}
