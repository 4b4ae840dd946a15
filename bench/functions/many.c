// many: hello with a mark in its data that is another one in each of its copies.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const volatile char mark[] = "mark 000000";

int main(void) {
	const char *query = getenv("QUERY_STRING");
	const char *token = query ? strstr(query, "t=") : NULL;
	printf("{\"token\":\"%s\",\"mark\":\"%c\"}\n", token ? token + 2 : "", mark[10]);
	return 0;
}
