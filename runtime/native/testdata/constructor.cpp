#include <iostream>
#include <string>

static int built;

struct constructed {
	constructed() { built++; std::cerr << "constructor\n"; }
} one;

int main()
{
	std::string body;
	std::cin >> body;
	std::cout << "constructed " << built << " " << body << "\n";
}
