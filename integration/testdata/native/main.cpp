// C++ with what it has at start and at the end: a constructor, exceptions, a destructor.
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>

struct Counted {
	int count = 0;
	Counted() { ++count; }
	~Counted() { std::cerr << "destroyed\n"; }
} counted;

int main()
{
	std::string body{std::istreambuf_iterator<char>(std::cin), {}};
	try {
		if (body.empty())
			throw std::runtime_error("nothing");
		std::cout << "[" << counted.count++ << "," << body << "]\n";
	} catch (const std::exception &e) {
		std::cout << "{\"caught\":\"" << e.what() << "\"}\n";
	}
	if (body == "\"throw\"")
		throw std::runtime_error("uncaught");
}
