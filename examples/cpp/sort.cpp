// Sorts the lines of the request's body, and says so in a header.
#include <algorithm>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

int main()
{
	try {
		std::vector<std::string> lines;
		for (std::string line; std::getline(std::cin, line);)
			lines.push_back(line);
		if (lines.empty())
			throw std::invalid_argument("there is nothing to sort");
		std::sort(lines.begin(), lines.end());
		std::cout << "Content-Type: text/plain\nX-Lines: " << lines.size() << "\n\n";
		for (const auto &line : lines)
			std::cout << line << '\n';
	} catch (const std::exception &e) {
		std::cout << "Status: 400 Bad Request\nContent-Type: application/json\n\n{\"error\":\"" << e.what() << "\"}\n";
	}
}
